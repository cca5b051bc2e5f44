import { packLength, type PackLimits } from './packing.ts';
import type { Rank } from '../queues/rank.ts';
import type { Segment } from './spool/segment.ts';

/** An accepted event in memory. */
export interface HeldEvent {
  readonly json: string;
  /** UTF-8 bytes of `json`. */
  readonly bytes: number;
  readonly rank: Rank;
  /** Where it is on disk as well. */
  readonly segment: Segment | undefined;
}

export interface LaneOptions {
  limits: PackLimits;
  /**
   * Resolves when something else than this lane has the events, which are then taken off the
   * array; those that are left when the signal is aborted are the lane's again.
   */
  deliver: (pack: HeldEvent[], signal: AbortSignal) => Promise<void>;
}

/** Full packs that are put in the order of their events' ranks at most, where so many wait. */
const WINDOW_PACKS = 8;

/**
 * The events of one kind in memory, first in, first out. They leave in packs: as soon as one is
 * full, or when its first event has waited for `maxWaitMs`. One delivery is under way at a time;
 * the next one takes what came meanwhile. Where many wait, the oldest of them are put in the order of
 * their ranks, so that each pack has those of an eighth of all (see `Rank`).
 */
export class Lane {
  readonly #options: LaneOptions;
  /** Events from `#head` on are waiting. */
  #events: HeldEvent[] = [];
  #head = 0;
  /** Events from `#head` on that are in the order of their ranks. */
  #ordered = 0;
  #bytes = 0;
  #inFlight: HeldEvent[] = [];
  /** Events pushed since the start, and how many of these, the oldest, are no longer here. */
  #pushed = 0;
  #gone = 0;
  #isSending = false;
  #timer: NodeJS.Timeout | undefined;
  #flushes: { upTo: number; resolve: () => void }[] = [];
  readonly #abandoned = new AbortController();

  constructor(options: LaneOptions) {
    this.#options = options;
  }

  /** Bytes of JSON that wait, without what is being delivered. */
  get waitingBytes(): number {
    return this.#bytes;
  }

  push(event: HeldEvent): void {
    this.#events.push(event);
    this.#bytes += event.bytes;
    this.#pushed++;
    this.#schedule();
  }

  /** The oldest events that wait, of so many bytes at most but one at least. */
  oldest(maxBytes: number): HeldEvent[] {
    const limits = { maxEvents: Infinity, maxBytes, maxWaitMs: 0 };
    return this.#events.slice(
      this.#head,
      this.#head + packLength(this.#events, this.#head, limits),
    );
  }

  /** Gives away the oldest events that wait. */
  remove(count: number): void {
    this.#take(count);
    this.#settle();
  }

  /** Sends without waiting for company; resolves when all events pushed so far are gone. */
  flush(): Promise<void> {
    if (this.#gone >= this.#pushed) return Promise.resolve();
    return new Promise((resolve) => {
      this.#flushes.push({ upTo: this.#pushed, resolve });
      this.#schedule();
    });
  }

  /** Stops, and gives away all that is left. */
  abandon(): HeldEvent[] {
    clearTimeout(this.#timer);
    this.#abandoned.abort();
    const left = [...this.#inFlight.splice(0), ...this.#take(this.#events.length)];
    this.#isSending = false;
    this.#settle();
    return left;
  }

  #schedule(): void {
    const waiting = this.#events.length - this.#head;
    if (this.#isSending || waiting === 0 || this.#abandoned.signal.aborted) return;
    const { maxEvents, maxBytes, maxWaitMs } = this.#options.limits;
    if (waiting >= maxEvents || this.#bytes >= maxBytes || this.#flushes.length > 0) {
      clearTimeout(this.#timer);
      this.#isSending = true;
      // Not within the caller's emit: packing a megabyte is not its work.
      setImmediate(() => void this.#send());
    } else {
      this.#timer ??= setTimeout(() => {
        this.#isSending = true;
        void this.#send();
      }, maxWaitMs);
    }
  }

  async #send(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const { signal } = this.#abandoned;
    if (signal.aborted) return;
    this.#order();
    this.#inFlight = this.#take(packLength(this.#events, this.#head, this.#options.limits));
    await this.#options.deliver(this.#inFlight, signal);
    if (signal.aborted) return;
    this.#isSending = false;
    this.#settle();
    this.#schedule();
  }

  /** Nobody is passed by what came after a flush that waits for him. */
  #order(): void {
    const { maxEvents } = this.#options.limits;
    const waiting = this.#events.length - this.#head;
    const [flush] = this.#flushes;
    const flushed = flush ? flush.upTo - (this.#pushed - waiting) : waiting;
    const packs = Math.floor(Math.min(flushed, waiting) / maxEvents);
    if (this.#ordered > 0 || packs < 2) return;
    const count = Math.min(packs, WINDOW_PACKS) * maxEvents;
    const oldest = this.#events.slice(this.#head, this.#head + count);
    // Numbers sort many times as fast as objects: of a rank, which is below 2^31, and a place.
    const keys = Float64Array.from(oldest, ({ rank }, place) => rank * count + place).sort();
    for (const [n, key] of keys.entries()) {
      this.#events[this.#head + n] = oldest[key % count] as HeldEvent;
    }
    this.#ordered = count;
  }

  #take(count: number): HeldEvent[] {
    const taken = this.#events.slice(this.#head, this.#head + count);
    this.#head += taken.length;
    this.#ordered = Math.max(this.#ordered - taken.length, 0);
    for (const { bytes } of taken) this.#bytes -= bytes;
    // What was taken is let go of now and then: moving the rest each time would cost too much.
    if (this.#head * 2 >= this.#events.length) {
      this.#events = this.#events.slice(this.#head);
      this.#head = 0;
    }
    return taken;
  }

  /**
   * Resolves the flushes whose events are all gone. While a delivery is under way its events, the
   * oldest, are not, whatever became of younger ones.
   */
  #settle(): void {
    if (this.#isSending) return;
    this.#gone = this.#pushed - (this.#events.length - this.#head);
    const isDone = ({ upTo }: { upTo: number }) => upTo <= this.#gone;
    for (const { resolve } of this.#flushes.filter(isDone)) resolve();
    this.#flushes = this.#flushes.filter((flush) => !isDone(flush));
  }
}
