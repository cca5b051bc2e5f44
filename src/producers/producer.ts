import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { v7 as uuidv7 } from 'uuid';

import { loadConfig, type Config } from '../config.ts';
import { InvalidEventError, SpoolFullError, UnavailableError } from '../errors.ts';
import type { QueueLocation } from '../queues/backend.ts';
import {
  encodeEvent,
  EVENT_KINDS,
  type EncodedEvent,
  type EventInput,
  type EventKind,
} from '../queues/events.ts';
import { Delivery } from './delivery.ts';
import { spillAtExit } from './exit.ts';
import { Lane, type HeldEvent } from './lane.ts';
import { Outlet } from './outlet.ts';
import { Replay } from './replay.ts';
import { configuredSpoolFolder, spoolFolder } from './spool/destination.ts';
import { Spool } from './spool/spool.ts';
import { Tally, type ProducerStats } from './tally.ts';

export interface ProducerOptions {
  /** Where the queues are; a function is asked at the first event that is sent. */
  queue: QueueLocation | (() => Promise<QueueLocation>);
  /**
   * Folder of the spool, for producers to the same queues and no others. Default: one within
   * ANNALS_SPOOL_DIR by the address of `queue` or, if that is a function, by the configuration.
   */
  spoolFolder?: string;
  /** Bounds and waiting times. Default: the environment's. */
  config?: Config;
  /**
   * When an event survives `kill -9` of the process. `queue`: once the queue or the spool has it,
   * which `flush()` waits for. `sync`: it is written to the spool before `emit` returns, and
   * fsynced, for a machine that loses its power, a few milliseconds later; `flush()` waits for that.
   * Default: ANNALS_DURABILITY.
   */
  durability?: Config['ANNALS_DURABILITY'];
  /**
   * What becomes of a new event when memory and spool are full, or the spool cannot be written:
   * `drop` (counted, and told to `onDrop`) or `throw` a {@link SpoolFullError} from `emit`, which
   * then has not accepted it. Default: ANNALS_ON_FULL.
   */
  onFull?: Config['ANNALS_ON_FULL'];
  /** Takes the error of a wrong event instead of its being thrown. */
  onInvalid?: (error: InvalidEventError) => void;
  /** Told of accepted events that are lost: for want of room, at a close too, or by a damaged file. */
  onDrop?: (events: number) => void;
  /**
   * Told when the queue cannot be reached, at each attempt (sending is repeated by itself), and
   * when the spool cannot be used (`SpoolError`), once until it can be again.
   */
  onError?: (error: unknown) => void;
  /** Told of a spool file with damaged places; the events beside them are delivered. */
  onCorrupt?: (file: string, places: number) => void;
}

/**
 * Emits events. The four emit methods are synchronous: they check the event, copy it and return
 * its id. They do not wait, touch the network or throw for anything but a wrong event
 * ({@link InvalidEventError} with the path in `field`) or, if `onFull` says so, a full spool.
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
  /**
   * Resolves when the queue, or the fsynced spool, has every event that was accepted before the
   * call (and was not dropped).
   *
   * @throws {UnavailableError} when the producer was closed before that
   * @throws {SpoolError} when the disk does not confirm what was written
   */
  flush(): Promise<void>;
  /** Resolves when the buffer is less than half full: await it to emit as fast as events leave. */
  ready(): Promise<void>;
  stats(): ProducerStats;
  /**
   * Flushes and disconnects; later events are refused. Waits for the queue to take all there is, in
   * the spool too, as long as it answers. What it does not take by the deadline, or while it is
   * away, stays in the spool (`stats().spooled`) for the next producer that uses the folder.
   * Idempotent.
   *
   * @param options - `deadlineMs`: milliseconds, default ANNALS_SHUTDOWN_DEADLINE_MS
   * @throws {UnavailableError} saying how many events were dropped, if the spool had no room either
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

/** Bytes of JSON that a full buffer hands to the spool at a time. */
const PIECE_BYTES = 1024 * 1024;

/** Milliseconds between two looks at whether a close is done. */
const CLOSE_LOOK_MS = 10;

class QueueProducer implements Producer {
  readonly #options: ProducerOptions;
  readonly #config: Config;
  readonly #isSync: boolean;
  readonly #pieceBytes: number;
  readonly #tally: Tally;
  readonly #spool: Spool;
  readonly #outlet: Outlet;
  readonly #delivery: Delivery;
  readonly #replay: Replay;
  readonly #lanes: Record<EventKind, Lane>;
  readonly #leaveExit: () => void;
  #waitingForRoom: (() => void)[] = [];
  #closing: Promise<void> | undefined;
  #lostAtClose = 0;

  constructor(options: ProducerOptions) {
    this.#options = options;
    const { queue } = options;
    const config = (this.#config = options.config ?? loadConfig());
    this.#isSync = (options.durability ?? config.ANNALS_DURABILITY) === 'sync';
    const maxBytes = config.ANNALS_SPOOL_MAX_BYTES;
    this.#pieceBytes = Math.min(PIECE_BYTES, maxBytes / 16);
    const producerId = randomUUID();
    const onError = (error: unknown) => this.#tell(() => options.onError?.(error));
    const limits = {
      maxEvents: config.ANNALS_PACK_MAX_EVENTS,
      maxBytes: config.ANNALS_PACK_MAX_BYTES,
      maxWaitMs: config.ANNALS_PACK_MAX_WAIT_MS,
    };
    const root =
      options.spoolFolder ??
      (typeof queue === 'function' ? configuredSpoolFolder(config) : spoolFolder(config, queue));

    this.#tally = new Tally(producerId);
    this.#spool = new Spool({ root, producerId, maxBytes, onFault: onError });
    this.#outlet = new Outlet(queue, onError);
    const parts = { outlet: this.#outlet, spool: this.#spool, tally: this.#tally, onError };
    this.#delivery = new Delivery({
      ...parts,
      spoolAfterMs: config.ANNALS_SPOOL_AFTER_MS,
      onMoved: () => this.#onMoved(),
    });
    this.#replay = new Replay({
      ...parts,
      delivery: this.#delivery,
      producerId,
      limits,
      onDrop: (events) => this.#tell(() => options.onDrop?.(events)),
      onCorrupt: (file, places) => this.#tell(() => options.onCorrupt?.(file, places)),
    });
    this.#lanes = Object.fromEntries(
      EVENT_KINDS.map((kind) => [
        kind,
        new Lane({
          limits,
          deliver: (packs, signal) => this.#delivery.deliver(kind, packs, signal),
        }),
      ]),
    ) as Record<EventKind, Lane>;
    this.#leaveExit = spillAtExit(() => {
      this.#spill();
      this.#spool.syncSync();
    });
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
      this.#tally.stats.invalid++;
      const { onInvalid } = this.#options;
      if (!onInvalid) throw invalid;
      this.#tell(() => onInvalid(invalid));
      return id;
    }
    this.#accept(kind, encoded);
    this.#tally.stats.replaced += encoded.replaced;
    return encoded.id;
  }

  async flush(): Promise<void> {
    const gone = EVENT_KINDS.map((kind) => this.#lanes[kind].flush());
    if (!this.#isSync) await Promise.all(gone); // otherwise the spool has them as well
    await this.#spool.synced();
    if (this.#lostAtClose > 0) throw this.#notTaken();
  }

  ready(): Promise<void> {
    if (this.#isHalfEmpty()) return Promise.resolve();
    return new Promise((resolve) => this.#waitingForRoom.push(resolve));
  }

  stats(): ProducerStats {
    return { ...this.#tally.stats, spooledBytes: this.#spool.bytes };
  }

  close({
    deadlineMs = this.#config.ANNALS_SHUTDOWN_DEADLINE_MS,
  }: { deadlineMs?: number } = {}): Promise<void> {
    this.#closing ??= this.#close(deadlineMs);
    return this.#closing;
  }

  /** Puts an event into memory, or in the spool; or neither, if both are full. */
  #accept(kind: EventKind, { json, bytes }: EncodedEvent): void {
    let held: HeldEvent = { json, bytes, segment: undefined };
    if (this.#isSync) {
      const { accepted, dropped } = this.#tally.ledger(kind);
      const record = { kind, accepted: accepted + 1, dropped, json };
      const segment = this.#spool.append([{ record, bytes }]);
      if (!segment) return this.#refuse(kind, held);
      segment.held++;
      held = { json, bytes, segment };
      this.#replay.wake();
    }
    const isRoom = this.#makeRoom(bytes);
    this.#tally.accept(kind, bytes);
    if (isRoom) this.#lanes[kind].push(held);
    else if (!this.#delivery.spool(kind, [held])) {
      this.#tally.retract(kind, bytes);
      this.#refuse(kind, held);
    }
  }

  #refuse(kind: EventKind, event: HeldEvent): void {
    if ((this.#options.onFull ?? this.#config.ANNALS_ON_FULL) === 'throw') {
      throw new SpoolFullError(
        `the ${kind} event was not accepted: memory and spool are full, or the spool cannot be written. See to the queue, or to ANNALS_SPOOL_MAX_BYTES and the disk.`,
      );
    }
    this.#tally.accept(kind, event.bytes);
    this.#drop(kind, [event]);
  }

  #drop(kind: EventKind, events: readonly HeldEvent[]): void {
    this.#tally.moved(kind, events, 'dropped');
    this.#tell(() => this.#options.onDrop?.(events.length));
  }

  /** Hands the oldest events to the spool until there is room; says whether there is. */
  #makeRoom(bytes: number): boolean {
    const { stats } = this.#tally;
    while (
      stats.buffered >= this.#config.ANNALS_BUFFER_MAX_EVENTS ||
      stats.bufferedBytes + bytes > this.#config.ANNALS_BUFFER_MAX_BYTES
    ) {
      // Events that are in the spool already take no more room there.
      if (!this.#isSync && !this.#spool.hasRoom(2 * this.#pieceBytes)) return false;
      const kind = this.#fullestKind();
      const lane = this.#lanes[kind];
      if (lane.waitingBytes === 0) return false; // all is on its way
      const events = lane.oldest(this.#pieceBytes);
      if (!this.#delivery.spool(kind, events)) return false;
      lane.remove(events.length);
    }
    return true;
  }

  #fullestKind(): EventKind {
    return EVENT_KINDS.reduce((fullest, kind) =>
      this.#lanes[kind].waitingBytes > this.#lanes[fullest].waitingBytes ? kind : fullest,
    );
  }

  async #close(deadlineMs: number): Promise<void> {
    await this.#drain(performance.now() + deadlineMs);
    this.#lostAtClose = this.#spill();
    this.#leaveExit();
    this.#replay.stop();
    await Promise.all([this.#outlet.disconnect(), this.#spool.close()]);
    this.#onMoved();
    if (this.#lostAtClose > 0) throw this.#notTaken();
  }

  /** Resolves when there is nothing left to send, nobody to send it to, or no time. */
  async #drain(deadline: number): Promise<void> {
    const { failures } = this.#replay;
    for (const lane of Object.values(this.#lanes)) void lane.flush();
    this.#replay.hurry();
    while (performance.now() < deadline) {
      if (this.#tally.stats.buffered === 0) {
        if (this.#replay.isDone) return;
        // It was tried once more. (Embedded servers that are starting are about to be there.)
        const isAway = this.#delivery.isAway && this.#replay.failures > failures;
        if (isAway && !this.#outlet.isLocating) return;
      }
      await sleep(CLOSE_LOOK_MS);
    }
  }

  /** Hands all that is in memory to the spool, synchronously; returns how many were lost. */
  #spill(): number {
    let lost = 0;
    for (const kind of EVENT_KINDS) {
      const events = this.#lanes[kind].abandon();
      for (let first = 0; first < events.length;) {
        let bytes = 0;
        let end = first;
        for (; end < events.length && bytes < this.#pieceBytes; end++) {
          bytes += (events[end] as HeldEvent).bytes;
        }
        const piece = events.slice(first, end);
        if (!this.#delivery.spool(kind, piece)) {
          this.#drop(kind, piece);
          lost += piece.length;
        }
        first = end;
      }
    }
    return lost;
  }

  #notTaken(): UnavailableError {
    return new UnavailableError(
      `neither the queue nor the spool took ${this.#lostAtClose} events before the producer was closed; they are dropped`,
    );
  }

  /** Events left the memory. */
  #onMoved(): void {
    if (this.#tally.stats.spooled > 0) this.#replay.wake();
    if (this.#waitingForRoom.length === 0 || !this.#isHalfEmpty()) return;
    for (const resolve of this.#waitingForRoom.splice(0)) resolve();
  }

  /** Calls a callback of the caller's, whose own faults must not stop the sending. */
  #tell(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      process.emitWarning(`a callback of the producer threw: ${String(error)}`, 'AnnalsWarning');
    }
  }

  #isHalfEmpty(): boolean {
    const { buffered, bufferedBytes } = this.#tally.stats;
    return (
      buffered * 2 < this.#config.ANNALS_BUFFER_MAX_EVENTS &&
      bufferedBytes * 2 < this.#config.ANNALS_BUFFER_MAX_BYTES
    );
  }
}

function toIso(occurredAt: string | Date | undefined): unknown {
  if (occurredAt === undefined) return new Date().toISOString();
  if (!(occurredAt instanceof Date)) return occurredAt;
  return Number.isNaN(occurredAt.getTime()) ? 'Invalid Date' : occurredAt.toISOString();
}
