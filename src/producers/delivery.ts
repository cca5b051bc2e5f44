import { setTimeout as sleep } from 'node:timers/promises';

import { UnavailableError } from '../errors.ts';
import { packEnvelope } from '../queues/envelope.ts';
import type { EventKind } from '../queues/events.ts';
import type { HeldEvent } from './lane.ts';
import type { Outlet } from './outlet.ts';
import type { Segment } from './spool/segment.ts';
import type { Spool } from './spool/spool.ts';
import type { Tally } from './tally.ts';

export interface DeliveryOptions {
  outlet: Outlet;
  spool: Spool;
  tally: Tally;
  /** Milliseconds in which the queue has to take events. */
  spoolAfterMs: number;
  /** Told of each failed attempt to send. */
  onError: (error: unknown) => void;
  /** Events left the memory, for the queue or the spool. */
  onMoved: () => void;
}

/** Milliseconds before a failed call is repeated; doubles from the first to the last. */
export const RETRY_MS = { first: 100, last: 1000 };

/** Events that the spool takes or refuses at once. */
const SPOOL_PIECE = 500;

/** Milliseconds that a call gets at most, whatever became of its events meanwhile. */
export const SEND_TIMEOUT_MS = 10_000;

/**
 * Brings events to the queue or, where that does not take them in time, to the spool. Until a call
 * succeeds again the queue then counts as away, and what comes goes to the spool at once; the
 * replay of the spool is what tries.
 *
 * The call that was late goes on. If the queue takes its events after all, their copies in the spool,
 * which have segments of their own, are removed unread: a queue that is slow because it has much to
 * do is not given the same once more. Only when the call has failed, which leaves open whether it
 * arrived, are they sent again; the ids of the events make the second copy harmless. (With durability
 * `sync` they share segments with others, which may have to be sent.)
 */
export class Delivery {
  /** Whether the queue counts as away. */
  isAway = false;
  readonly #options: DeliveryOptions;

  constructor(options: DeliveryOptions) {
    this.#options = options;
  }

  /** Takes all events off the array when they are delivered or spooled, and returns. */
  async deliver(kind: EventKind, pack: HeldEvent[], signal: AbortSignal): Promise<void> {
    const { onError, outlet, spoolAfterMs, tally } = this.#options;
    const deadline = performance.now() + spoolAfterMs;
    for (let retryMs = RETRY_MS.first; !signal.aborted;) {
      if (this.isAway) this.#spoolAll(kind, pack);
      if (pack.length === 0) return;
      try {
        const envelope = packEnvelope(pack, tally.ledger(kind));
        const call = outlet.send(kind, envelope, SEND_TIMEOUT_MS);
        if (!this.isAway) {
          const remainingMs = Math.max(deadline - performance.now(), RETRY_MS.first);
          await this.#orLate(kind, pack, call, remainingMs, signal);
          if (pack.length === 0 || signal.aborted) return;
        }
        const connection = await call;
        if (signal.aborted) return; // they are the spool's by now
        this.isAway = false;
        this.#taken(kind, pack.splice(0), connection);
      } catch (error) {
        onError(error);
        const leftMs = deadline - performance.now();
        if (leftMs <= 0 && !this.isAway) this.isAway = true;
        else {
          const pauseMs = leftMs > 0 ? Math.min(retryMs, leftMs) : retryMs;
          await sleep(pauseMs, undefined, { signal }).catch(() => {});
          retryMs = Math.min(retryMs * 2, RETRY_MS.last);
        }
      }
    }
  }

  /**
   * Has the spool take events over, synchronously and all or none; says whether it did.
   *
   * @param call - that brings them to the queue meanwhile; only when it fails are they sent again
   */
  spool(kind: EventKind, events: readonly HeldEvent[], call?: Promise<number>): boolean {
    const { spool, tally, onMoved } = this.#options;
    const loose = events.filter((event) => !event.segment);
    const held = countBySegment(events);
    if (loose.length > 0) {
      const ledger = tally.ledger(kind);
      const records = loose.map(({ json, bytes }) => ({
        record: { kind, ...ledger, json },
        bytes,
      }));
      const segment = spool.append(records);
      if (!segment) return false;
      segment.held += loose.length;
      held.set(segment, (held.get(segment) ?? 0) + loose.length);
    }
    if (!call) leave(held);
    else {
      void call.then(
        (connection) => this.#tookLate(held, connection),
        () => leave(held),
      );
    }
    tally.moved(kind, events, 'spooled');
    onMoved();
    return true;
  }

  /** Has the spool take events off the array, as far as it has room. */
  #spoolAll(kind: EventKind, pack: HeldEvent[], call?: Promise<number>): void {
    while (pack.length > 0 && this.spool(kind, pack.slice(0, SPOOL_PIECE), call)) {
      pack.splice(0, SPOOL_PIECE);
    }
  }

  /** Waits for a call to settle; when it is late, the spool has the events as long as it goes on. */
  async #orLate(
    kind: EventKind,
    pack: HeldEvent[],
    call: Promise<number>,
    milliseconds: number,
    signal: AbortSignal,
  ): Promise<void> {
    const { onError, spool } = this.#options;
    const timer = new AbortController();
    // The call keeps the agent's process alive as long as it may; its being late does not.
    const late = sleep(milliseconds, true, { ref: false, signal: timer.signal }).catch(() => false);
    const isLate = await Promise.race([late, call.then(() => false)]).finally(() => timer.abort());
    if (!isLate || signal.aborted) return;
    this.isAway = true;
    onError(new UnavailableError(`the queue did not answer within ${Math.round(milliseconds)} ms`));
    call.catch((error: unknown) => {
      if (pack.length === 0 && !signal.aborted) onError(error); // nobody else waits for it
    });
    // In segments of their own, since a segment is sent whole.
    spool.seal();
    this.#spoolAll(kind, pack, call);
    spool.seal();
  }

  #taken(kind: EventKind, events: readonly HeldEvent[], connection: number): void {
    release(countBySegment(events), connection);
    this.#options.tally.moved(kind, events, 'delivered');
    this.#options.onMoved();
  }

  #tookLate(held: ReadonlyMap<Segment, number>, connection: number): void {
    this.isAway = false;
    release(held, connection);
    let events = 0;
    for (const count of held.values()) events += count;
    this.#options.tally.replayed(events);
    this.#options.onMoved();
  }
}

/** How many of the events are on disk as well, by segment. */
function countBySegment(events: readonly HeldEvent[]): Map<Segment, number> {
  const counts = new Map<Segment, number>();
  for (const { segment } of events) {
    if (segment) counts.set(segment, (counts.get(segment) ?? 0) + 1);
  }
  return counts;
}

/** The queue has taken events that were held. */
function release(held: ReadonlyMap<Segment, number>, connection: number): void {
  for (const [segment, count] of held) {
    segment.held -= count;
    segment.taken(connection);
  }
}

/** Nobody else brings the events that were held: the replay is to. */
function leave(held: ReadonlyMap<Segment, number>): void {
  for (const [segment, count] of held) {
    segment.held -= count;
    segment.unsent += count;
  }
}
