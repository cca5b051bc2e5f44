import { encodeEvent, type EncodedEvent } from './eventEncoding.ts';
import type { EventKind } from './events.ts';

/** Checked events of one job, in order, and the JSON that stands for them on their way to PostgreSQL. */
export class EventList {
  readonly length: number;
  /** UTF-8 bytes of their JSON. */
  readonly bytes: number;
  readonly #kind: EventKind;
  /** As they came, since a job that fails in part keeps them so; absent until somebody asks. */
  #events: readonly unknown[] | undefined;
  readonly #encoded: EncodedEvent[];
  /** Milliseconds since 1970 of each, and the JSON of all, with commas between, as somebody else wrote it. */
  readonly #written: { times: readonly number[]; text: string } | undefined;
  #isForgotten = false;

  private constructor(
    kind: EventKind,
    length: number,
    { events, encoded = [], written }: Partial<Parts>,
  ) {
    this.#kind = kind;
    this.#events = events;
    this.#encoded = encoded;
    this.#written = written;
    this.length = length;
    this.bytes = written
      ? Buffer.byteLength(written.text)
      : encoded.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** @param events - as they came, one for each that is encoded */
  static ofEncoded(
    kind: EventKind,
    events: readonly unknown[],
    encoded: EncodedEvent[],
  ): EventList {
    return new EventList(kind, events.length, { events, encoded });
  }

  /**
   * @param times - milliseconds since 1970 of each
   * @param text - their JSON as somebody else wrote it, with commas between; `encodeEvent` takes each as it is
   */
  static ofText(kind: EventKind, times: readonly number[], text: string): EventList {
    return new EventList(kind, times.length, { written: { times, text } });
  }

  /** The event as it came. */
  eventAt(index: number): unknown {
    this.#events ??= JSON.parse(`[${this.#written?.text}]`) as unknown[];
    return this.#events[index];
  }

  encodedAt(index: number): EncodedEvent {
    return (this.#encoded[index] ??= encodeEvent(this.#kind, this.eventAt(index)));
  }

  /** Milliseconds since 1970. */
  occurredAt(index: number): number {
    return this.#written?.times[index] ?? this.encodedAt(index).occurredAt;
  }

  /** The JSON of the events from `from` to before `to`, with commas between. */
  json(from: number, to: number): string {
    if (this.#written && !this.#isForgotten && from === 0 && to === this.length) {
      return this.#written.text;
    }
    const texts: string[] = [];
    for (let index = from; index < to; index++) texts.push(this.encodedAt(index).json);
    return texts.join(',');
  }

  /**
   * Forgets what somebody else wrote: from here on the JSON is our own. The same values may be
   * written in ways that PostgreSQL does not take, such as 1.0 for an integer.
   *
   * @returns whether there was anything to forget
   */
  forgetText(): boolean {
    const hadText = this.#written !== undefined && !this.#isForgotten;
    this.#isForgotten = true;
    return hadText;
  }
}

interface Parts {
  events: readonly unknown[];
  encoded: EncodedEvent[];
  written: { times: readonly number[]; text: string };
}
