import { setTimeout as sleep } from 'node:timers/promises';

import type { Queue } from 'bullmq';

import { UnavailableError } from '../errors.ts';
import { openProducerQueue, prepareQueues, type QueueLocation } from '../queues/backend.ts';
import type { EventKind } from '../queues/events.ts';
import { RedisDisk } from './redisDisk.ts';

interface Opened {
  queue: Queue<string>;
  /** Number of the connection; another one after each time that it was lost. */
  connection: number;
}

/** Milliseconds that a connection gets to close well. */
const DISCONNECT_MS = 500;

/** The queues as a producer sees them: each call succeeds or fails within its time. */
export class Outlet {
  readonly #locate: () => Promise<QueueLocation>;
  readonly #onError: (error: unknown) => void;
  readonly #opening = new Map<EventKind, Promise<Opened>>();
  readonly #opened = new Map<EventKind, Opened>();
  #location: Promise<QueueLocation> | undefined;
  #connections = 0;
  #isLocating = false;
  #isClosed = false;
  #disk: RedisDisk | undefined;

  /** @param onError - told of faults of connections; calls reject as well */
  constructor(
    queue: QueueLocation | (() => Promise<QueueLocation>),
    onError: (error: unknown) => void,
  ) {
    this.#locate = async () => (typeof queue === 'function' ? queue() : queue);
    this.#onError = onError;
  }

  /** Whether embedded servers may just be starting. */
  get isLocating(): boolean {
    return this.#isLocating;
  }

  /**
   * Adds jobs, each the text of an envelope.
   *
   * @returns the number of the connection that took them
   * @throws if any of them may not be in the queue
   */
  async send(kind: EventKind, envelopes: string[], timeoutMs: number): Promise<number> {
    let isLate = false;
    const work = async () => {
      const opened = await this.#open(kind);
      // Whoever gave up waiting sends again, and there need not be two copies.
      if (isLate || this.#isClosed) throw new UnavailableError('the queue was not found in time');
      const { connection, queue } = opened;
      await queue.addBulk(envelopes.map((data) => ({ name: kind, data })));
      return connection;
    };
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        isLate = true;
        reject(new UnavailableError(`the queue did not answer within ${timeoutMs} ms`));
      }, timeoutMs);
    });
    try {
      return await Promise.race([work(), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Whether these connections, by kind, are still the ones over which events are sent. */
  isCurrent(connections: ReadonlyMap<EventKind, number>): boolean {
    return [...connections].every(
      ([kind, connection]) => this.#opened.get(kind)?.connection === connection,
    );
  }

  /**
   * Whether what was taken so far will outlive the queue's server: PostgreSQL has committed it,
   * Redis says so where it can. That it answers at all proves that the connections are whole.
   *
   * @returns `undefined` if the server cannot say
   * @throws when the queue does not answer
   */
  async isOnDisk(kinds: readonly EventKind[]): Promise<boolean | undefined> {
    const location = await this.#location;
    if (!location) throw new UnavailableError('the queue was not found yet');
    if (location.kind === 'postgres') return true;
    this.#disk ??= new RedisDisk(location, this.#onError);
    const opened = kinds.map((kind) => this.#opened.get(kind)?.queue);
    return this.#disk.hasAll(opened.filter((queue) => queue !== undefined));
  }

  /** A client's own `close()` can wait for ever on a server that is away, so nobody waits for it. */
  async disconnect(): Promise<void> {
    this.#isClosed = true;
    this.#disk?.disconnect();
    const disconnecting = [...this.#opened.values()].map(async ({ queue }) => {
      await Promise.race([queue.close(), sleep(DISCONNECT_MS, undefined, { ref: false })]);
      await queue.disconnect();
    });
    await Promise.race([
      Promise.allSettled(disconnecting),
      sleep(2 * DISCONNECT_MS, undefined, { ref: false }),
    ]);
  }

  #open(kind: EventKind): Promise<Opened> {
    let opening = this.#opening.get(kind);
    if (!opening) {
      opening = this.#openQueue(kind);
      this.#opening.set(kind, opening);
      // The next attempt to send opens it anew.
      opening.catch(() => this.#opening.delete(kind));
    }
    return opening;
  }

  async #openQueue(kind: EventKind): Promise<Opened> {
    this.#location ??= this.#find();
    this.#location.catch(() => (this.#location = undefined));
    const location = await this.#location;
    if (this.#isClosed) throw new UnavailableError('the producer is closed');
    const queue = openProducerQueue(location, kind);
    const opened: Opened = { queue, connection: ++this.#connections };
    this.#opened.set(kind, opened);
    // With a listener from the start on, no fault of a connection ends the process.
    queue.on('error', (error) => this.#onError(error));
    queue.on('ioredis:close', () => (opened.connection = ++this.#connections));
    // BullMQ remembers for ever that a first contact failed (PostgreSQL refused it, Redis did not
    // answer to INFO): such a queue is given up, and the next attempt to send opens another.
    try {
      await queue.waitUntilReady();
      return opened;
    } catch (error) {
      void queue.close().catch(() => {});
      void queue.disconnect().catch(() => {});
      throw error;
    }
  }

  async #find(): Promise<QueueLocation> {
    this.#isLocating = true;
    try {
      const location = await this.#locate();
      await prepareQueues(location);
      return location;
    } finally {
      this.#isLocating = false;
    }
  }
}
