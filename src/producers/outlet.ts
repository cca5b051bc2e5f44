import { setTimeout as sleep } from 'node:timers/promises';

import type { Queue } from 'bullmq';
import type { Redis } from 'ioredis';

import { Connection } from '../database/connection.ts';
import { UnavailableError } from '../errors.ts';
import { openProducerQueue, prepareQueues } from '../queues/backend.ts';
import { openRedis, type QueueLocation } from '../queues/connection.ts';
import type { EventKind } from '../queues/events.ts';
import { RedisDisk } from './redisDisk.ts';

/** The place where the queues are, once it is found. */
interface Found {
  location: QueueLocation;
  /** The connection that all queues share; only on Redis. */
  redis: Redis | undefined;
}

/** Milliseconds that a call may wait before its connection to Redis is replaced. */
const SILENCE_MS = 10_000;

/** Milliseconds that connections to PostgreSQL get to close well. */
const DISCONNECT_MS = 500;

/**
 * Milliseconds for which events are kept after Redis took them. `said`: where it says that they are
 * on its disk, since with `appendfsync everysec` it may say so before the fsync that is under way
 * has ended (redis/redis#13793). `unsaid`: where it cannot; the fsync takes one or two seconds.
 */
export const KEEP_MS = { said: 2000, unsaid: 5000 };

/** The queues as a producer sees them: each call succeeds or fails within its time. */
export class Outlet {
  /** Number of the connection to Redis; another one after each time that it was lost. */
  connection = 0;
  readonly #locate: () => Promise<QueueLocation>;
  readonly #onError: (error: unknown) => void;
  readonly #onBack: () => void;
  readonly #queues = new Map<EventKind, Promise<Queue<string>>>();
  #finding: Promise<Found> | undefined;
  #found: Found | undefined;
  #isClosed = false;
  /** Whether connections to PostgreSQL are cut off: those that there are, and any that is opened yet. */
  #isCut = false;
  #disk: RedisDisk | undefined;
  /** Of the calls under way. */
  readonly #timers = new Set<NodeJS.Timeout>();
  /** What gives up a call under way. */
  readonly #giveUp = new Set<(error: UnavailableError) => void>();
  /** Every connection to PostgreSQL that may be open. */
  readonly #clients = new Set<Connection>();
  readonly #Client: typeof Connection;

  /**
   * @param onError - told of faults of connections; calls reject as well
   * @param onBack - told when Redis can be used, for the first time or again
   */
  constructor(
    queue: QueueLocation | (() => Promise<QueueLocation>),
    onError: (error: unknown) => void,
    onBack: () => void,
  ) {
    this.#onBack = onBack;
    this.#locate = async () => (typeof queue === 'function' ? queue() : queue);
    this.#onError = (error) => {
      if (!this.#isClosed) onError(error);
    };
    const clients = this.#clients;
    const isCut = () => this.#isCut;
    this.#Client = class extends Connection {
      constructor(...args: ConstructorParameters<typeof Connection>) {
        super(...args);
        if (isCut()) setImmediate(() => this.cut());
        clients.add(this);
        this.once('end', () => clients.delete(this));
      }
    };
  }

  /** Whether the queues are just being found, which starts embedded servers. */
  get isLocating(): boolean {
    return this.#finding !== undefined && !this.#found;
  }

  /**
   * Adds a job, the text of an envelope.
   *
   * @returns the number of the connection that took it
   * @throws if it may not be in the queue
   */
  async send(kind: EventKind, envelope: string, timeoutMs: number): Promise<number> {
    let isGivenUp = false;
    const work = async () => {
      const queue = await this.#open(kind);
      // Whoever gave up waiting sends again, and there need not be two copies.
      if (isGivenUp || this.#isClosed)
        throw new UnavailableError('the queue was not found in time');
      const { connection } = this;
      // Not `addBulk`, which makes temporary tables in PostgreSQL for as few as one.
      await queue.add(kind, envelope);
      return connection;
    };
    let giveUp!: (error: UnavailableError) => void;
    const givenUp = new Promise<never>((_, reject) => {
      giveUp = (error) => {
        isGivenUp = true;
        reject(error);
      };
    });
    this.#giveUp.add(giveUp);
    const timer = setTimeout(() => {
      giveUp(new UnavailableError(`the queue did not answer within ${timeoutMs} ms`));
      // To be silent for so long is to be dead: a host without power, a path that drops packets.
      if (timeoutMs >= SILENCE_MS) this.#found?.redis?.disconnect(true);
    }, timeoutMs);
    this.#timers.add(timer);
    try {
      return await Promise.race([work(), givenUp]);
    } finally {
      clearTimeout(timer);
      this.#timers.delete(timer);
      this.#giveUp.delete(giveUp);
    }
  }

  /**
   * Milliseconds after which what the queue took will outlive its server: none on PostgreSQL, which
   * has committed it; few where Redis says that all is on its disk. That it answers at all proves
   * that the connection is whole.
   *
   * @param ageMs - age of the oldest that is asked about
   * @throws when the queue does not answer
   */
  async keepMs(ageMs: number): Promise<number> {
    if (!this.#found) throw new UnavailableError('the queue was not found yet');
    const { location, redis } = this.#found;
    if (!redis) return 0;
    if (ageMs < KEEP_MS.said) return KEEP_MS.said; // whatever the answer, nothing would come of it
    this.#disk ??= new RedisDisk(redis, location.prefix, this.#onError);
    return (await this.#disk.hasAll()) ? KEEP_MS.said : KEEP_MS.unsaid;
  }

  async disconnect(): Promise<void> {
    this.#isClosed = true;
    // Nobody waits for these calls any more, nor should the agent's process.
    for (const timer of this.#timers) timer.unref();
    this.#disk?.disconnect();
    this.#found?.redis?.disconnect();
    if (this.#found?.redis) return;
    // The client's own `close()` can wait for ever on a server that is away; nobody waits for it.
    const closing = [...this.#queues.values()].map(async (opening) => (await opening).close());
    await Promise.race([
      Promise.allSettled(closing),
      sleep(DISCONNECT_MS, undefined, { ref: false }),
    ]);
    // What is left keeps the agent's process alive until its own time-outs, for up to a minute.
    this.#isCut = true;
    for (const client of this.#clients) client.cut();
  }

  #open(kind: EventKind): Promise<Queue<string>> {
    let opening = this.#queues.get(kind);
    if (!opening) {
      opening = this.#openQueue(kind);
      this.#queues.set(kind, opening);
      // The next attempt to send opens it anew.
      opening.catch(() => this.#queues.delete(kind));
    }
    return opening;
  }

  async #openQueue(kind: EventKind): Promise<Queue<string>> {
    this.#finding ??= this.#find();
    this.#finding.catch(() => (this.#finding = undefined));
    const { location, redis } = await this.#finding;
    if (this.#isClosed) throw new UnavailableError('the producer is closed');
    const queue = openProducerQueue(location, kind, redis, this.#Client);
    // With a listener from the start on, no fault of a connection ends the process.
    queue.on('error', this.#onError);
    // BullMQ remembers for ever that a first contact failed (PostgreSQL refused it, Redis did not
    // answer to INFO): such a queue is given up, and the next attempt to send opens another.
    try {
      await queue.waitUntilReady();
      return queue;
    } catch (error) {
      void queue.close().catch(() => {});
      throw error;
    }
  }

  async #find(): Promise<Found> {
    const location = await this.#locate();
    await prepareQueues(location, this.#Client);
    if (this.#isClosed) throw new UnavailableError('the producer is closed');
    const redis = location.kind === 'redis' ? openRedis(location) : undefined;
    redis?.on('error', this.#onError);
    redis?.on('close', () => {
      this.connection++;
      // No answer comes any more, but the client would wait for it as long as for any other.
      const error = new UnavailableError('the connection to Redis was lost');
      for (const giveUp of this.#giveUp) giveUp(error);
    });
    redis?.on('ready', this.#onBack);
    this.#found = { location, redis };
    return this.#found;
  }
}
