import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { loadSettings, PRODUCER_SETTINGS, type ProducerConfig } from '../config.ts';
import { InvalidEventError, SpoolError, UnavailableError } from '../errors.ts';
import { encodeNewEvent, encodeOwnEvent, type EncodedEvent } from '../queues/eventEncoding.ts';
import type { EventInput, EventKind } from '../queues/events.ts';
import { newIdentity } from '../queues/identity.ts';
import type { Producer, ProducerOptions } from './api.ts';
import { EventBuffer } from './buffer.ts';
import { Delivery } from './delivery.ts';
import { spillAtExit } from './exit.ts';
import { Outlet } from './outlet.ts';
import { Replay } from './replay.ts';
import { configuredSpoolFolder, describeDestination, spoolFolder } from './spool/destination.ts';
import { Spool } from './spool/spool.ts';
import { Tally, type ProducerStats } from './tally.ts';

export type { Producer, ProducerOptions } from './api.ts';

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

/** Milliseconds that the disk gets for the last fsync of a close whose deadline has passed. */
const LAST_SYNC_MS = 500;

class QueueProducer implements Producer {
  readonly #options: ProducerOptions;
  readonly #config: ProducerConfig;
  readonly #tally: Tally;
  readonly #spool: Spool;
  readonly #outlet: Outlet;
  readonly #delivery: Delivery;
  readonly #replay: Replay;
  readonly #buffer: EventBuffer;
  readonly #leaveExit: () => void;
  #closing: Promise<void> | undefined;
  #lostAtClose = 0;

  constructor(options: ProducerOptions) {
    const { queue } = options;
    const config = options.config ?? loadSettings(PRODUCER_SETTINGS);
    const id = randomUUID();
    const maxBytes = config.ANNALS_SPOOL_MAX_BYTES;
    const root =
      options.spoolFolder ??
      (typeof queue === 'function' ? configuredSpoolFolder(config) : spoolFolder(config, queue));
    const limits = {
      maxEvents: config.ANNALS_PACK_MAX_EVENTS,
      maxBytes: config.ANNALS_PACK_MAX_BYTES,
      maxWaitMs: config.ANNALS_PACK_MAX_WAIT_MS,
    };
    // What costs events is told, if to nobody else.
    const {
      onDrop: tellDrop = warnOnce(
        (events: number) =>
          `events were dropped (${events} now; stats() counts them): memory and spool were full, or the spool could not be written or read`,
      ),
      onCorrupt: tellCorrupt = warnOnce(
        (file: string) => `the spool file ${file} is damaged; the events beside it are sent`,
      ),
      onError: tellError = warnOnce((error: unknown) =>
        error instanceof SpoolError ? error.message : undefined,
      ),
    } = options;
    const onError = (error: unknown) => this.#tell(() => tellError(error));
    const onDrop = (events: number) => this.#tell(() => tellDrop(events));

    this.#options = options;
    this.#config = config;
    this.#tally = new Tally(id);
    const destination = describeDestination(
      config,
      typeof queue === 'function' ? undefined : queue,
    );
    this.#spool = new Spool({ root, producerId: id, destination, maxBytes, onFault: onError });
    this.#outlet = new Outlet(queue, onError, () => this.#replay.hurry());
    const parts = { tally: this.#tally, spool: this.#spool, outlet: this.#outlet };
    this.#delivery = new Delivery({
      ...parts,
      spoolAfterMs: config.ANNALS_SPOOL_AFTER_MS,
      onError,
      onMoved: () => this.#buffer.onMoved(),
    });
    this.#replay = new Replay({
      ...parts,
      delivery: this.#delivery,
      producerId: id,
      limits,
      onError,
      onDrop,
      onCorrupt: (file, places) => this.#tell(() => tellCorrupt(file, places)),
    });
    this.#buffer = new EventBuffer({
      ...parts,
      delivery: this.#delivery,
      limits,
      maxEvents: config.ANNALS_BUFFER_MAX_EVENTS,
      maxBytes: config.ANNALS_BUFFER_MAX_BYTES,
      pieceBytes: Math.min(PIECE_BYTES, maxBytes / 16),
      durability: options.durability ?? config.ANNALS_DURABILITY,
      onFull: options.onFull ?? config.ANNALS_ON_FULL,
      onDrop,
      onSpooled: () => this.#replay.wake(),
    });
    this.#leaveExit = spillAtExit(() => {
      this.#buffer.spill();
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
    let id: string | undefined;
    let encoded: EncodedEvent | undefined;
    try {
      if (!this.#closing) encoded = encodeNewEvent(kind, event);
      if (!encoded) {
        const identity = isWhole(event) ? event : newIdentity();
        id = event?.id ?? identity.id;
        if (this.#closing) {
          throw new InvalidEventError(`${kind} event ${id}: the producer is closed`);
        }
        const occurredAt = event?.occurredAt ?? identity.occurredAt;
        encoded = encodeOwnEvent(kind, isWhole(event) ? event : { ...event, id, occurredAt });
      }
    } catch (error) {
      id ??= (error instanceof InvalidEventError ? error.id : idOf(event)) ?? newIdentity().id;
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
    this.#buffer.accept(kind, encoded);
    this.#tally.stats.replaced += encoded.replaced;
    return encoded.id;
  }

  async flush(): Promise<void> {
    await this.#buffer.flush();
    await this.#spool.synced();
    if (this.#lostAtClose > 0) throw this.#notTaken();
  }

  ready(): Promise<void> {
    return this.#buffer.ready();
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

  async #close(deadlineMs: number): Promise<void> {
    const deadline = performance.now() + deadlineMs;
    await this.#drain(deadline);
    this.#lostAtClose = this.#buffer.spill();
    this.#leaveExit();
    this.#replay.stop();
    const leftMs = Math.max(deadline - performance.now(), LAST_SYNC_MS);
    await Promise.all([this.#outlet.disconnect(), this.#spool.close(leftMs)]);
    if (this.#lostAtClose > 0) throw this.#notTaken();
  }

  /** Resolves when there is nothing left to send, nobody to send it to, or no time. */
  async #drain(deadline: number): Promise<void> {
    const { failures } = this.#replay;
    void this.#buffer.flush();
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

  #notTaken(): UnavailableError {
    return new UnavailableError(
      `neither the queue nor the spool took ${this.#lostAtClose} events before the producer was closed; they are dropped`,
    );
  }

  /** Calls a callback of the caller's, whose own faults must not stop the sending. */
  #tell(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      process.emitWarning(`a callback of the producer threw: ${String(error)}`, 'AnnalsWarning');
    }
  }
}

/** A callback that makes the first thing it is told of a warning of the process. */
function warnOnce<Args extends unknown[]>(
  messageOf: (...args: Args) => string | undefined,
): (...args: Args) => void {
  let isSaid = false;
  return (...args) => {
    const message = isSaid ? undefined : messageOf(...args);
    if (message === undefined) return;
    isSaid = true;
    process.emitWarning(message, 'AnnalsWarning');
  };
}

type OwnIdentity = Parameters<typeof encodeOwnEvent>[1];

/** The id that an event brings, if that much of it can be read. */
function idOf(event: { id?: unknown }): string | undefined {
  try {
    return typeof event.id === 'string' ? event.id : undefined;
  } catch {
    return undefined;
  }
}

/** Whether id and time are the caller's. */
const isWhole = (event: { id?: unknown; occurredAt?: unknown }): event is OwnIdentity =>
  typeof event?.id === 'string' && event.occurredAt !== undefined && event.occurredAt !== null;
