import type { Redis } from 'ioredis';

/** Milliseconds that Redis gets to have its append-only file on disk. */
const FSYNC_TIMEOUT_MS = 2000;

/** Milliseconds that any other answer to a question may take. */
const ANSWER_TIMEOUT_MS = 500;

/** Milliseconds for which a Redis that could not say so is not asked again. */
const REST_MS = 10_000;

/** Milliseconds for which the key lives that is written to have something to wait for. */
const KEY_LIFE_MS = 60_000;

/**
 * Asks Redis whether it has on disk what it has confirmed (WAITAOF, Redis 7.2 or later with its
 * append-only file).
 *
 * WAITAOF holds up its connection until the next fsync, a second by default, so it has one of its
 * own, and waits for the last write of that: a small key, written after everything that is asked
 * about, and so behind it in the append-only file.
 *
 * Everything that goes wrong on the way there is no more than "cannot say": a connection too many
 * for the server, a right that is missing, `appendfsync no`, under which the answer is never yes.
 */
export class RedisDisk {
  readonly #redis: Redis;
  readonly #waiting: Redis;
  readonly #key: string;
  #restsUntil = 0;

  /** @param redis - the connection over which everything was confirmed */
  constructor(redis: Redis, prefix: string, onError: (error: unknown) => void) {
    this.#redis = redis;
    this.#key = `${prefix}:on-disk`;
    this.#waiting = redis.duplicate({
      lazyConnect: true,
      enableOfflineQueue: true,
      commandTimeout: FSYNC_TIMEOUT_MS + ANSWER_TIMEOUT_MS,
    });
    this.#waiting.on('error', onError);
  }

  /**
   * @returns whether Redis says that all is on disk
   * @throws when the connection over which everything was confirmed does not answer
   */
  async hasAll(): Promise<boolean> {
    const server = about(await this.#redis.info());
    if (!server.canWait || performance.now() < this.#restsUntil) return false;
    const isSaid = await this.#isSaid(server).catch(() => false);
    if (!isSaid) this.#restsUntil = performance.now() + REST_MS;
    return isSaid;
  }

  async #isSaid({ runId }: About): Promise<boolean> {
    // Behind one address there may be several servers.
    if (runId !== about(await this.#waiting.info()).runId) return false;
    await this.#waiting.set(this.#key, '1', 'PX', KEY_LIFE_MS);
    const [onDisk] = (await this.#waiting.call('WAITAOF', 1, 0, FSYNC_TIMEOUT_MS)) as [number];
    return onDisk >= 1;
  }

  disconnect(): void {
    this.#waiting.disconnect();
  }
}

interface About {
  runId: string | undefined;
  canWait: boolean;
}

/** What the reply to INFO says of a server. */
function about(info: string): About {
  const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1];
  const [major = 0, minor = 0] = (field('redis_version') ?? '').split('.').map(Number);
  const isNewEnough = major > 7 || (major === 7 && minor >= 2);
  return { runId: field('run_id'), canWait: isNewEnough && field('aof_enabled') === '1' };
}
