import type { ProducerLedger } from '../queues/envelope.ts';
import { EVENT_KINDS, type EventKind } from '../queues/events.ts';

/**
 * Counts since the start, in events. At every moment
 *
 *     accepted = delivered + dropped + buffered + spooled
 *
 * for the events that this producer's own methods accepted; `adopted` and `corrupt` stand apart.
 */
export interface ProducerStats {
  accepted: number;
  /** Taken by the queue. */
  delivered: number;
  /** Lost: memory and spool were full, a close came to its deadline so, or their record was damaged. */
  dropped: number;
  /** In memory now, and with durability `sync` in the spool as well. */
  buffered: number;
  /** In the spool now, and no longer in memory; a call that is late may yet bring them to the queue. */
  spooled: number;
  /** Refused as wrong; not accepted. */
  invalid: number;
  /** U+0000 and lone surrogates that were replaced by U+FFFD. */
  replaced: number;
  /** Taken by the queue on behalf of producers that ended before they could send them. */
  adopted: number;
  /** Damaged places found in spool files. */
  corrupt: number;
  /** Bytes of JSON in memory now. */
  bufferedBytes: number;
  /** Bytes that the spool takes on disk now, with what the queue took a moment ago. */
  spooledBytes: number;
}

/** The account of a producer. An event is buffered when it is accepted, and moves on from there. */
export class Tally {
  readonly stats: Omit<ProducerStats, 'spooledBytes'> = {
    accepted: 0,
    delivered: 0,
    dropped: 0,
    buffered: 0,
    spooled: 0,
    invalid: 0,
    replaced: 0,
    adopted: 0,
    corrupt: 0,
    bufferedBytes: 0,
  };
  readonly #id: string;
  readonly #byKind = Object.fromEntries(
    EVENT_KINDS.map((kind) => [kind, { accepted: 0, dropped: 0 }]),
  ) as Record<EventKind, { accepted: number; dropped: number }>;

  constructor(id: string) {
    this.#id = id;
  }

  /** What envelopes and spool records carry along. */
  ledger(kind: EventKind): ProducerLedger {
    const { accepted, dropped } = this.#byKind[kind];
    return { id: this.#id, accepted, dropped };
  }

  accept(kind: EventKind, bytes: number): void {
    this.stats.accepted++;
    this.#byKind[kind].accepted++;
    this.stats.buffered++;
    this.stats.bufferedBytes += bytes;
  }

  /** Undoes `accept`. */
  retract(kind: EventKind, bytes: number): void {
    this.stats.accepted--;
    this.#byKind[kind].accepted--;
    this.stats.buffered--;
    this.stats.bufferedBytes -= bytes;
  }

  /** Events left the memory, for there. */
  moved(kind: EventKind, events: readonly { bytes: number }[], to: Fate): void {
    this.stats.buffered -= events.length;
    for (const { bytes } of events) this.stats.bufferedBytes -= bytes;
    this.stats[to] += events.length;
    if (to === 'dropped') this.#byKind[kind].dropped += events.length;
  }

  /** The queue took spooled events. */
  replayed(events: number): void {
    this.stats.spooled -= events;
    this.stats.delivered += events;
  }

  /** Spooled events could not be read. */
  damaged(kind: EventKind, events: number): void {
    this.stats.spooled -= events;
    this.stats.dropped += events;
    this.#byKind[kind].dropped += events;
  }
}

type Fate = 'delivered' | 'dropped' | 'spooled';
