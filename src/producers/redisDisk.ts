import type { Queue } from 'bullmq';
import { Redis } from 'ioredis';

import type { QueueLocation } from '../queues/backend.ts';

/** Milliseconds that Redis gets to answer, and to have its append-only file on disk. */
const TIMEOUT_MS = { command: 10_000, fsync: 2000 };

/**
 * Asks Redis whether it has on disk what it has confirmed (WAITAOF, Redis 7.2 or later with its
 * append-only file).
 *
 * WAITAOF holds up its connection until the next fsync, a second by default, so it has one of its
 * own, and waits for the last write of that: a small key, written after everything that is asked
 * about, and so behind it in the append-only file.
 */
export class RedisDisk {
  readonly #client: Redis;
  readonly #key: string;

  constructor(location: QueueLocation, onError: (error: unknown) => void) {
    this.#key = `${location.prefix}:on-disk`;
    this.#client = new Redis(location.url, {
      lazyConnect: true,
      commandTimeout: TIMEOUT_MS.command,
      autoResendUnfulfilledCommands: false,
      retryStrategy: (attempt) => Math.min(attempt * 100, 2000),
    });
    this.#client.on('error', onError);
  }

  /**
   * @param queues - over whose connections it was confirmed; that they answer is made sure of
   * @returns whether all is on disk; `undefined` if Redis cannot say
   * @throws when a connection does not answer
   */
  async hasAll(queues: Queue<string>[]): Promise<boolean | undefined> {
    const servers = await Promise.all(
      queues.map(async (queue) => about(await (await queue.getBackend().client).info())),
    );
    if (servers.length === 0 || !servers.every((server) => server.canWait)) return undefined;
    const here = about(await this.#client.info());
    // Behind one address there may be several servers.
    if (servers.some((server) => server.runId !== here.runId)) return undefined;
    try {
      await this.#client.set(this.#key, '1', 'PX', 60_000);
      const [onDisk] = (await this.#client.call('WAITAOF', 1, 0, TIMEOUT_MS.fsync)) as [number];
      return onDisk >= 1;
    } catch (error) {
      if ((error as Error).name === 'ReplyError') return undefined; // such as NOPERM
      throw error;
    }
  }

  disconnect(): void {
    this.#client.disconnect();
  }
}

/** What the reply to INFO says of a server. */
function about(info: string): { runId: string | undefined; canWait: boolean } {
  const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1];
  const [major = 0, minor = 0] = (field('redis_version') ?? '').split('.').map(Number);
  const isNewEnough = major > 7 || (major === 7 && minor >= 2);
  return { runId: field('run_id'), canWait: isNewEnough && field('aof_enabled') === '1' };
}
