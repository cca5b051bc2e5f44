import { setTimeout as sleep } from 'node:timers/promises';

import { UnavailableError } from '../errors.ts';
import { ENVELOPE_BYTES, packEnvelope } from '../queues/envelope.ts';
import type { EncodedEvent } from '../queues/events.ts';

/** When events are packed into one job. */
export interface PackLimits {
  maxEvents: number;
  maxBytes: number;
  maxWaitMs: number;
}

export interface LaneOptions {
  limits: PackLimits;
  /** Adds jobs, each the text of an envelope, to the queue; rejects if any may not be there. */
  send: (envelopes: string[]) => Promise<void>;
  /** Told of events that the queue has taken. */
  onDelivered: (events: readonly EncodedEvent[]) => void;
  /** Told of each failed attempt to send. */
  onError: (error: unknown) => void;
}

/** Jobs added to the queue in one call at most, which bounds what one retry repeats. */
const MAX_JOBS_A_CALL = 16;

/** Milliseconds before a failed call is repeated; doubles from the first to the last. */
const RETRY_MS = { first: 100, last: 2000 };

/**
 * The events of one kind on their way to their queue, first in, first out. They leave in packs:
 * as soon as one is full, or when its first event has waited for `maxWaitMs`. One call to the
 * queue is under way at a time; the next one takes what came meanwhile. A call that fails is
 * repeated until it succeeds: should the first have arrived after all, the ids of the events make
 * the second copy harmless.
 */
export class Lane {
  readonly #options: LaneOptions;
  #buffer: EncodedEvent[] = [];
  #bufferBytes = 0;
  /** Events taken and events delivered since the start. */
  #accepted = 0;
  #delivered = 0;
  #isSending = false;
  #timer: NodeJS.Timeout | undefined;
  #flushes: { upTo: number; resolve: () => void; reject: (error: Error) => void }[] = [];
  readonly #abandoned = new AbortController();

  constructor(options: LaneOptions) {
    this.#options = options;
  }

  push(event: EncodedEvent): void {
    this.#buffer.push(event);
    this.#bufferBytes += event.bytes;
    this.#accepted++;
    this.#schedule();
  }

  /**
   * Sends without waiting for company; resolves when all events pushed so far are delivered.
   *
   * @throws {UnavailableError} when sending was given up before they were
   */
  flush(): Promise<void> {
    if (this.#delivered === this.#accepted) return Promise.resolve();
    if (this.#abandoned.signal.aborted) return Promise.reject(givenUp());
    return new Promise((resolve, reject) => {
      this.#flushes.push({ upTo: this.#accepted, resolve, reject });
      this.#schedule();
    });
  }

  /** Gives up sending; the events that are still here are the caller's to account for. */
  abandon(): void {
    clearTimeout(this.#timer);
    this.#abandoned.abort();
    for (const { reject } of this.#flushes.splice(0)) reject(givenUp());
  }

  #schedule(): void {
    if (this.#isSending || this.#buffer.length === 0 || this.#abandoned.signal.aborted) return;
    const { maxEvents, maxBytes, maxWaitMs } = this.#options.limits;
    const isDue =
      this.#buffer.length >= maxEvents || this.#bufferBytes >= maxBytes || this.#flushes.length > 0;
    if (isDue) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
      this.#isSending = true;
      // Not within the caller's emit: packing a megabyte is not its work.
      setImmediate(() => void this.#send());
    } else {
      this.#timer ??= setTimeout(() => {
        this.#timer = undefined;
        this.#isSending = true;
        void this.#send();
      }, maxWaitMs);
    }
  }

  async #send(): Promise<void> {
    const packs: EncodedEvent[][] = [];
    while (packs.length < MAX_JOBS_A_CALL && this.#buffer.length > 0) packs.push(this.#takePack());
    const envelopes = packs.map((pack) => packEnvelope(pack));
    if (await this.#sendUntilTaken(envelopes)) {
      for (const pack of packs) {
        this.#delivered += pack.length;
        this.#options.onDelivered(pack);
      }
      const isDone = ({ upTo }: { upTo: number }) => upTo <= this.#delivered;
      for (const { resolve } of this.#flushes.filter(isDone)) resolve();
      this.#flushes = this.#flushes.filter((flush) => !isDone(flush));
    }
    this.#isSending = false;
    this.#schedule();
  }

  #takePack(): EncodedEvent[] {
    const { maxEvents, maxBytes } = this.#options.limits;
    let bytes = ENVELOPE_BYTES;
    let count = 0;
    for (const event of this.#buffer) {
      bytes += event.bytes + 1;
      if (count > 0 && (count >= maxEvents || bytes > maxBytes)) break;
      this.#bufferBytes -= event.bytes;
      count++;
    }
    return this.#buffer.splice(0, count);
  }

  async #sendUntilTaken(envelopes: string[]): Promise<boolean> {
    const { signal } = this.#abandoned;
    for (let retryMs = RETRY_MS.first; !signal.aborted;) {
      try {
        await this.#options.send(envelopes);
        return true;
      } catch (error) {
        this.#options.onError(error);
        await sleep(retryMs, undefined, { signal }).catch(() => {});
        retryMs = Math.min(retryMs * 2, RETRY_MS.last);
      }
    }
    return false;
  }
}

const givenUp = () =>
  new UnavailableError('the producer was closed before the queue took all events');
