import { setTimeout as sleep } from 'node:timers/promises';

import type { Queue } from 'bullmq';
import { v7 as uuidv7 } from 'uuid';

import { loadConfig, type Config } from '../config.ts';
import { InvalidEventError, UnavailableError } from '../errors.ts';
import { openProducerQueue, prepareQueues, type QueueLocation } from '../queues/backend.ts';
import {
  encodeEvent,
  EVENT_KINDS,
  type EncodedEvent,
  type EventInput,
  type EventKind,
} from '../queues/events.ts';
import { Lane } from './lane.ts';

export interface ProducerOptions {
  /** Where the queues are; a function is asked at the first event that is sent. */
  queue: QueueLocation | (() => Promise<QueueLocation>);
  /** Packing and buffer bounds. Default: the environment's. */
  config?: Pick<
    Config,
    | 'ANNALS_PACK_MAX_EVENTS'
    | 'ANNALS_PACK_MAX_BYTES'
    | 'ANNALS_PACK_MAX_WAIT_MS'
    | 'ANNALS_BUFFER_MAX_EVENTS'
    | 'ANNALS_BUFFER_MAX_BYTES'
    | 'ANNALS_SHUTDOWN_DEADLINE_MS'
  >;
  /** Takes the error of a wrong event instead of its being thrown. */
  onInvalid?: (error: InvalidEventError) => void;
  /** Told of events that a full buffer, or a close that came to its deadline, dropped. */
  onDrop?: (events: number) => void;
  /** Told when the queue cannot be reached, at each attempt; sending is repeated by itself. */
  onError?: (error: unknown) => void;
}

/** Counts since the start, in events. `accepted` = `delivered` + `dropped` + `buffered`. */
export interface ProducerStats {
  accepted: number;
  /** Taken by the queue. */
  delivered: number;
  /** Lost for want of room in the buffer, or of time at the close. */
  dropped: number;
  /** Refused as wrong; not accepted. */
  invalid: number;
  /** U+0000 and lone surrogates that were replaced by U+FFFD. */
  replaced: number;
  /** In memory now. */
  buffered: number;
  /** Bytes of JSON in memory now. */
  bufferedBytes: number;
}

/**
 * Emits events. The four emit methods are synchronous: they check the event, copy it into the
 * buffer and return its id. They do not wait, touch the network or throw for anything but a wrong
 * event ({@link InvalidEventError} with the path in `field`).
 */
export interface Producer {
  /** A memory was read, written or searched. */
  memoryAccess(event: EventInput<'memory-access'>): string;
  /** A module's state changed. */
  transition(event: EventInput<'transition'>): string;
  /** A figure about a session or an agent was taken. */
  metric(event: EventInput<'metrics'>): string;
  /** Something happened in a session. */
  sessionEvent(event: EventInput<'session-event'>): string;
  /** Emits an event whose kind is a value. */
  emit<K extends EventKind>(kind: K, event: EventInput<K>): string;
  /** Resolves when the queue has every event that was accepted before the call. */
  flush(): Promise<void>;
  /** Resolves when the buffer is less than half full: await it to emit as fast as the queue takes. */
  ready(): Promise<void>;
  stats(): ProducerStats;
  /**
   * Flushes and disconnects; later events are refused. Idempotent.
   *
   * @param options - `deadlineMs`: milliseconds after which what is left is dropped; default
   *   ANNALS_SHUTDOWN_DEADLINE_MS
   * @throws {UnavailableError} saying how many events were dropped, if any
   */
  close(options?: { deadlineMs?: number }): Promise<void>;
}

/**
 * Makes a producer; one per process is enough.
 *
 * @example
 * const annals = createProducer({ queue: { kind: 'redis', url: 'redis://127.0.0.1', prefix: 'annals' } });
 * annals.memoryAccess({ memoryId, accessType: 'read', accessedBy: agentId, accessorType: 'agent' });
 */
export function createProducer(options: ProducerOptions): Producer {
  return new QueueProducer(options);
}

class QueueProducer implements Producer {
  readonly #options: ProducerOptions;
  readonly #maxEvents: number;
  readonly #maxBytes: number;
  readonly #closeDeadlineMs: number;
  readonly #lanes: Record<EventKind, Lane>;
  readonly #queues = new Map<EventKind, Promise<Queue<string>>>();
  #location: Promise<QueueLocation> | undefined;
  #waitingForRoom: (() => void)[] = [];
  #closing: Promise<void> | undefined;
  readonly #stats: ProducerStats = {
    accepted: 0,
    delivered: 0,
    dropped: 0,
    invalid: 0,
    replaced: 0,
    buffered: 0,
    bufferedBytes: 0,
  };

  constructor(options: ProducerOptions) {
    this.#options = options;
    const config = options.config ?? loadConfig();
    this.#maxEvents = config.ANNALS_BUFFER_MAX_EVENTS;
    this.#maxBytes = config.ANNALS_BUFFER_MAX_BYTES;
    this.#closeDeadlineMs = config.ANNALS_SHUTDOWN_DEADLINE_MS;
    const limits = {
      maxEvents: config.ANNALS_PACK_MAX_EVENTS,
      maxBytes: config.ANNALS_PACK_MAX_BYTES,
      maxWaitMs: config.ANNALS_PACK_MAX_WAIT_MS,
    };
    this.#lanes = Object.fromEntries(
      EVENT_KINDS.map((kind) => [
        kind,
        new Lane({
          limits,
          send: (envelopes) => this.#send(kind, envelopes),
          onDelivered: (events) => this.#release(events, 'delivered'),
          onError: (error) => this.#tell(() => options.onError?.(error)),
        }),
      ]),
    ) as Record<EventKind, Lane>;
  }

  memoryAccess(event: EventInput<'memory-access'>): string {
    return this.emit('memory-access', event);
  }

  transition(event: EventInput<'transition'>): string {
    return this.emit('transition', event);
  }

  metric(event: EventInput<'metrics'>): string {
    return this.emit('metrics', event);
  }

  sessionEvent(event: EventInput<'session-event'>): string {
    return this.emit('session-event', event);
  }

  emit<K extends EventKind>(kind: K, event: EventInput<K>): string {
    const id = event?.id ?? uuidv7();
    let encoded: EncodedEvent;
    try {
      if (this.#closing) throw new InvalidEventError(`${kind} event ${id}: the producer is closed`);
      encoded = encodeEvent(kind, { ...event, id, occurredAt: toIso(event?.occurredAt) });
    } catch (error) {
      // A getter or a toJSON of the caller's may throw anything.
      const invalid =
        error instanceof InvalidEventError
          ? error
          : new InvalidEventError(`${kind} event ${id} cannot be read: ${String(error)}`, {
              cause: error,
            });
      this.#stats.invalid++;
      const { onInvalid } = this.#options;
      if (!onInvalid) throw invalid;
      this.#tell(() => onInvalid(invalid));
      return id;
    }
    this.#stats.accepted++;
    this.#stats.replaced += encoded.replaced;
    if (
      this.#stats.buffered >= this.#maxEvents ||
      this.#stats.bufferedBytes + encoded.bytes > this.#maxBytes
    ) {
      this.#drop(1);
    } else {
      this.#stats.buffered++;
      this.#stats.bufferedBytes += encoded.bytes;
      this.#lanes[kind].push(encoded);
    }
    return encoded.id;
  }

  async flush(): Promise<void> {
    await Promise.all(EVENT_KINDS.map((kind) => this.#lanes[kind].flush()));
  }

  ready(): Promise<void> {
    if (this.#hasRoom()) return Promise.resolve();
    return new Promise((resolve) => this.#waitingForRoom.push(resolve));
  }

  stats(): ProducerStats {
    return { ...this.#stats };
  }

  close({ deadlineMs = this.#closeDeadlineMs }: { deadlineMs?: number } = {}): Promise<void> {
    this.#closing ??= this.#close(deadlineMs);
    return this.#closing;
  }

  async #close(deadlineMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(resolve, deadlineMs, 'late');
    });
    const outcome = await Promise.race([this.flush(), late]);
    clearTimeout(timer);
    for (const lane of Object.values(this.#lanes)) lane.abandon();
    await this.#disconnect();
    if (outcome === 'late') {
      const lost = this.#stats.buffered;
      this.#stats.buffered = 0;
      this.#stats.bufferedBytes = 0;
      this.#drop(lost);
      for (const resolve of this.#waitingForRoom.splice(0)) resolve();
      throw new UnavailableError(
        `the queue did not take ${lost} events within ${deadlineMs} ms; they are dropped`,
      );
    }
  }

  /** A client's own `close()` can wait for ever on a server that is away, so nobody waits for it. */
  async #disconnect(): Promise<void> {
    const disconnecting = [...this.#queues.values()].map(async (opened) => {
      const queue = await opened;
      await Promise.race([queue.close(), sleep(DISCONNECT_MS, undefined, { ref: false })]);
      await queue.disconnect();
    });
    await Promise.race([
      Promise.allSettled(disconnecting),
      sleep(2 * DISCONNECT_MS, undefined, { ref: false }),
    ]);
  }

  async #send(kind: EventKind, envelopes: string[]): Promise<void> {
    const queue = await this.#queue(kind);
    await withTimeout(
      queue.addBulk(envelopes.map((data) => ({ name: kind, data }))),
      SEND_TIMEOUT_MS,
    );
  }

  #queue(kind: EventKind): Promise<Queue<string>> {
    let queue = this.#queues.get(kind);
    if (!queue) {
      queue = this.#openQueue(kind);
      this.#queues.set(kind, queue);
      // The next attempt to send opens it anew.
      queue.catch(() => this.#queues.delete(kind));
    }
    return queue;
  }

  async #openQueue(kind: EventKind): Promise<Queue<string>> {
    this.#location ??= this.#locate();
    this.#location.catch(() => (this.#location = undefined));
    const queue = openProducerQueue(await this.#location, kind);
    queue.on('error', (error) => this.#tell(() => this.#options.onError?.(error)));
    // BullMQ remembers for ever that a first connection to PostgreSQL failed: such a queue is
    // given up here, and the next attempt to send opens another.
    if ((await this.#location).kind === 'postgres') {
      try {
        await queue.waitUntilReady();
      } catch (error) {
        void queue.close().catch(() => {});
        throw error;
      }
    }
    return queue;
  }

  async #locate(): Promise<QueueLocation> {
    const { queue } = this.#options;
    const location = typeof queue === 'function' ? await queue() : queue;
    await prepareQueues(location);
    return location;
  }

  #release(events: readonly EncodedEvent[], how: 'delivered'): void {
    this.#stats[how] += events.length;
    this.#stats.buffered -= events.length;
    for (const { bytes } of events) this.#stats.bufferedBytes -= bytes;
    if (this.#waitingForRoom.length > 0 && this.#hasRoom()) {
      for (const resolve of this.#waitingForRoom.splice(0)) resolve();
    }
  }

  #drop(events: number): void {
    this.#stats.dropped += events;
    this.#tell(() => this.#options.onDrop?.(events));
  }

  /** Calls a callback of the caller's, whose own faults must not stop the sending. */
  #tell(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      process.emitWarning(`a callback of the producer threw: ${String(error)}`, 'AnnalsWarning');
    }
  }

  #hasRoom(): boolean {
    return (
      this.#stats.buffered * 2 < this.#maxEvents && this.#stats.bufferedBytes * 2 < this.#maxBytes
    );
  }
}

/** Milliseconds that a connection gets to close well. */
const DISCONNECT_MS = 500;

/** Milliseconds after which a call to the queue counts as failed. */
const SEND_TIMEOUT_MS = 10_000;

async function withTimeout<T>(work: Promise<T>, milliseconds: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new UnavailableError(`the queue did not answer within ${milliseconds} ms`)),
      milliseconds,
    );
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

function toIso(occurredAt: string | Date | undefined): unknown {
  if (occurredAt === undefined) return new Date().toISOString();
  if (!(occurredAt instanceof Date)) return occurredAt;
  return Number.isNaN(occurredAt.getTime()) ? 'Invalid Date' : occurredAt.toISOString();
}
