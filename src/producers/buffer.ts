import { SpoolFullError } from '../errors.ts';
import type { EncodedEvent } from '../queues/eventEncoding.ts';
import { EVENT_KINDS, type EventKind } from '../queues/events.ts';
import type { Delivery } from './delivery.ts';
import { Lane, type HeldEvent } from './lane.ts';
import type { PackLimits } from './packing.ts';
import type { Spool } from './spool/spool.ts';
import type { Tally } from './tally.ts';

export interface BufferOptions {
  tally: Tally;
  spool: Spool;
  delivery: Delivery;
  limits: PackLimits;
  maxEvents: number;
  maxBytes: number;
  /** Bytes of JSON that are handed to the spool at a time. */
  pieceBytes: number;
  durability: 'queue' | 'sync';
  onFull: 'drop' | 'throw';
  onDrop: (events: number) => void;
  /** There is something in the spool. */
  onSpooled: () => void;
}

/**
 * The events in memory, bounded by count and bytes: a lane for each kind, and the spool behind
 * them when they are full.
 */
export class EventBuffer {
  readonly #options: BufferOptions;
  readonly #isSync: boolean;
  readonly #lanes: Record<EventKind, Lane>;
  #waitingForRoom: (() => void)[] = [];

  constructor(options: BufferOptions) {
    const { delivery, durability, limits } = options;
    this.#options = options;
    this.#isSync = durability === 'sync';
    this.#lanes = Object.fromEntries(
      EVENT_KINDS.map((kind) => [
        kind,
        new Lane({ limits, deliver: (pack, signal) => delivery.deliver(kind, pack, signal) }),
      ]),
    ) as Record<EventKind, Lane>;
  }

  /**
   * Puts an event into memory, or in the spool; with durability `sync` into both. If neither takes
   * it, it is dropped.
   *
   * @throws {SpoolFullError} if it is to be thrown instead
   */
  accept(kind: EventKind, { json, bytes, rank }: EncodedEvent): void {
    const { delivery, onSpooled, spool, tally } = this.#options;
    let event: HeldEvent = { json, bytes, rank, segment: undefined };
    if (this.#isSync) {
      const { accepted, dropped } = tally.ledger(kind);
      const record = { kind, accepted: accepted + 1, dropped, json };
      const segment = spool.append([{ record, bytes }]);
      if (!segment) return this.#refuse(kind, event);
      segment.held++;
      event = { json, bytes, rank, segment };
      onSpooled();
    }
    const isRoom = this.#makeRoom(bytes);
    tally.accept(kind, bytes);
    if (isRoom) this.#lanes[kind].push(event);
    else if (!delivery.spool(kind, [event])) {
      tally.retract(kind, bytes);
      this.#refuse(kind, event);
    }
  }

  /** Resolves when the queue or the spool has what was accepted so far. */
  async flush(): Promise<void> {
    const gone = EVENT_KINDS.map((kind) => this.#lanes[kind].flush());
    if (!this.#isSync) await Promise.all(gone); // otherwise the spool has them as well
  }

  /** Resolves when the buffer is less than half full. */
  ready(): Promise<void> {
    if (this.#isHalfEmpty()) return Promise.resolve();
    return new Promise((resolve) => this.#waitingForRoom.push(resolve));
  }

  /** Events left the memory, for the queue or the spool. */
  onMoved(): void {
    if (this.#options.tally.stats.spooled > 0) this.#options.onSpooled();
    if (this.#waitingForRoom.length === 0 || !this.#isHalfEmpty()) return;
    for (const resolve of this.#waitingForRoom.splice(0)) resolve();
  }

  /**
   * Stops, and hands all to the spool, synchronously; returns how many events were lost. It is the
   * last time: the spool may have refused a moment ago, and a disk that is nearly full, or a bound
   * that is nearly reached, takes smaller pieces than others.
   */
  spill(): number {
    const { spool } = this.#options;
    spool.insist();
    let lost = 0;
    for (const kind of EVENT_KINDS) lost += this.#spillLane(kind, this.#lanes[kind].abandon());
    this.onMoved();
    return lost;
  }

  #spillLane(kind: EventKind, events: readonly HeldEvent[]): number {
    const { delivery, onDrop, pieceBytes, tally } = this.#options;
    let lost = 0;
    /** Bytes of a piece; halved as one is refused, which leaves no more room than there was. */
    let limit = pieceBytes;
    /** Bytes of the smallest event that was refused: a dead disk is not tried for each one. */
    let tooMany = Infinity;
    for (let first = 0; first < events.length;) {
      let bytes = 0;
      let end = first;
      while (end < events.length && (end === first || bytes < limit))
        bytes += (events[end++] as HeldEvent).bytes;
      const piece = events.slice(first, end);
      const isHopeless = bytes >= tooMany && piece.some(({ segment }) => !segment);
      if (!isHopeless && delivery.spool(kind, piece)) first = end;
      else if (piece.length > 1) limit = Math.min(limit, bytes) / 2;
      else {
        tally.moved(kind, piece, 'dropped'); // at once: what is spooled after it tells of it
        lost++;
        tooMany = Math.min(tooMany, bytes);
        first = end;
      }
    }
    if (lost > 0) onDrop(lost);
    return lost;
  }

  #refuse(kind: EventKind, event: HeldEvent): void {
    if (this.#options.onFull === 'throw') {
      throw new SpoolFullError(
        `the ${kind} event was not accepted: memory and spool are full, or the spool cannot be written. See to the queue, or to ANNALS_SPOOL_MAX_BYTES and the disk.`,
      );
    }
    this.#options.tally.accept(kind, event.bytes);
    this.#drop(kind, [event]);
  }

  #drop(kind: EventKind, events: readonly HeldEvent[]): void {
    this.#options.tally.moved(kind, events, 'dropped');
    this.#options.onDrop(events.length);
  }

  /** Hands the oldest events to the spool until there is room; says whether there is. */
  #makeRoom(bytes: number): boolean {
    const { delivery, maxBytes, maxEvents, pieceBytes, spool, tally } = this.#options;
    const { stats } = tally;
    while (stats.buffered >= maxEvents || stats.bufferedBytes + bytes > maxBytes) {
      // Events that are in the spool already take no more room there.
      if (!this.#isSync && !spool.hasRoom(2 * pieceBytes)) return false;
      const kind = this.#fullestKind();
      const lane = this.#lanes[kind];
      if (lane.waitingBytes === 0) return false; // all is on its way
      const events = lane.oldest(pieceBytes);
      if (!delivery.spool(kind, events)) return false;
      lane.remove(events.length);
    }
    return true;
  }

  #fullestKind(): EventKind {
    return EVENT_KINDS.reduce((fullest, kind) =>
      this.#lanes[kind].waitingBytes > this.#lanes[fullest].waitingBytes ? kind : fullest,
    );
  }

  #isHalfEmpty(): boolean {
    const { maxBytes, maxEvents, tally } = this.#options;
    return tally.stats.buffered * 2 < maxEvents && tally.stats.bufferedBytes * 2 < maxBytes;
  }
}
