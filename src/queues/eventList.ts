import { encodeEvent, type EncodedEvent } from './eventEncoding.ts';
import type { EventKind } from './events.ts';

/** Checked events of one job, in order, and the JSON that stands for them on their way to PostgreSQL. */
export class EventList {
  readonly length: number;
  /** UTF-8 bytes of their JSON. */
  readonly bytes: number;
  readonly #kind: EventKind;
  /** As they came; kept since a job that fails in part keeps them so. */
  readonly #events: readonly unknown[];
  readonly #encoded: EncodedEvent[];
  /** The JSON of all, with commas between. */
  #text: string | undefined;

  private constructor(
    kind: EventKind,
    events: readonly unknown[],
    encoded: EncodedEvent[],
    text?: string,
  ) {
    this.#kind = kind;
    this.#events = events;
    this.#encoded = encoded;
    this.#text = text;
    this.length = events.length;
    this.bytes =
      text === undefined
        ? encoded.reduce((sum, { bytes }) => sum + bytes, 0)
        : Buffer.byteLength(text);
  }

  /** @param events - as they came, one for each that is encoded */
  static ofEncoded(
    kind: EventKind,
    events: readonly unknown[],
    encoded: EncodedEvent[],
  ): EventList {
    return new EventList(kind, events, encoded);
  }

  /**
   * @param events - which `encodeEvent` takes as they are
   * @param text - their JSON as somebody else wrote it, with commas between
   */
  static ofText(kind: EventKind, events: readonly unknown[], text: string): EventList {
    return new EventList(kind, events, [], text);
  }

  /** The event as it came. */
  eventAt(index: number): unknown {
    return this.#events[index];
  }

  encodedAt(index: number): EncodedEvent {
    return (this.#encoded[index] ??= encodeEvent(this.#kind, this.#events[index]));
  }

  /** Milliseconds since 1970. */
  occurredAt(index: number): number {
    const encoded = this.#encoded[index];
    if (encoded) return encoded.occurredAt;
    return Date.parse((this.#events[index] as { occurredAt: string }).occurredAt);
  }

  /** The JSON of the events from `from` to before `to`, with commas between. */
  json(from: number, to: number): string {
    if (this.#text !== undefined && from === 0 && to === this.length) return this.#text;
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
    const hadText = this.#text !== undefined;
    this.#text = undefined;
    return hadText;
  }
}
