import { setTimeout as sleep } from 'node:timers/promises';

import { packEnvelope } from '../queues/envelope.ts';
import type { EventKind } from '../queues/events.ts';
import type { HeldEvent } from './lane.ts';
import type { Outlet } from './outlet.ts';
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

/** Milliseconds after which a call counts as failed when nothing but it is waiting. */
export const SEND_TIMEOUT_MS = 10_000;

/**
 * Brings events to the queue or, where that does not take them in time, to the spool. Until a call
 * succeeds again the queue then counts as away, and what comes goes to the spool at once; the
 * replay of the spool is what tries. A call that failed or was given up may have arrived: the ids
 * of the events make the second copy harmless.
 */
export class Delivery {
  /** Whether the queue counts as away. */
  isAway = false;
  readonly #options: DeliveryOptions;

  constructor(options: DeliveryOptions) {
    this.#options = options;
  }

  /** Takes packs off the array as they are delivered or spooled; returns when none is left. */
  async deliver(kind: EventKind, packs: HeldEvent[][], signal: AbortSignal): Promise<void> {
    const { outlet, onError, spoolAfterMs, tally } = this.#options;
    const deadline = performance.now() + spoolAfterMs;
    for (let retryMs = RETRY_MS.first; !signal.aborted;) {
      while (this.isAway && packs[0] && this.spool(kind, packs[0])) packs.shift();
      if (packs.length === 0) return;
      try {
        const ledger = tally.ledger(kind);
        const envelopes = packs.map((pack) => packEnvelope(pack, ledger));
        const remainingMs = Math.max(deadline - performance.now(), RETRY_MS.first);
        const timeoutMs = this.isAway ? SEND_TIMEOUT_MS : remainingMs;
        const connection = await outlet.send(kind, envelopes, timeoutMs);
        if (signal.aborted) return; // they are the spool's by now
        this.isAway = false;
        this.#taken(kind, packs.splice(0).flat(), connection);
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

  /** Has the spool take events over, synchronously and all or none; says whether it did. */
  spool(kind: EventKind, events: readonly HeldEvent[]): boolean {
    const { spool, tally, onMoved } = this.#options;
    const loose = events.filter((event) => !event.segment);
    if (loose.length > 0) {
      const ledger = tally.ledger(kind);
      const records = loose.map(({ json, bytes }) => ({
        record: { kind, ...ledger, json },
        bytes,
      }));
      const segment = spool.append(records);
      if (!segment) return false;
      segment.unsent += loose.length;
    }
    for (const { segment } of events) {
      if (!segment) continue;
      segment.held--;
      segment.unsent++;
    }
    tally.moved(kind, events, 'spooled');
    onMoved();
    return true;
  }

  #taken(kind: EventKind, events: readonly HeldEvent[], connection: number): void {
    for (const { segment } of events) {
      if (!segment) continue;
      segment.held--;
      segment.taken(connection);
    }
    this.#options.tally.moved(kind, events, 'delivered');
    this.#options.onMoved();
  }
}
