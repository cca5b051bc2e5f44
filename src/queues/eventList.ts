import { encodeRight, type EncodedEvent, type RightEvent } from './eventEncoding.ts';
import type { EventKind } from './events.ts';
import { NO_SPAN, widen, type Span } from './rank.ts';

/** The lines of some events for a table, in their order, each with a line feed. */
export interface TableLines {
  text: string;
  /** The sessions that they name, where their parents are such. */
  sessions: ReadonlySet<string>;
}

/** Those for each of the tables that they go into. */
export type Lines = readonly TableLines[];

/**
 * Makes lines of events, as their writer wants them.
 *
 * @param isClean - whether their JSON has no backslash, and so none of their texts a backslash or a line feed
 */
export type LinesOf = (events: readonly unknown[], isClean: boolean) => Lines;

/** Events as somebody else wrote them. */
export interface WrittenEvents {
  /** Their JSON, with commas between. */
  text: string;
  /** Milliseconds since 1970 of each. */
  times: readonly number[];
  span: Span;
  /** Whether JavaScript keeps all digits of their numbers. */
  isExact: boolean;
  /** Best made when the events are read, since to read them again costs more. */
  lines?: Lines | undefined;
}

interface Parts {
  events: readonly unknown[];
  encoded: EncodedEvent[];
  written: WrittenEvents;
}

/** Checked events of one job, in order, and the JSON that stands for them on their way to PostgreSQL. */
export class EventList {
  readonly length: number;
  /** UTF-8 bytes of their JSON. */
  readonly bytes: number;
  readonly span: Span;
  readonly #kind: EventKind;
  /** As they came, since a job that fails in part keeps them so; absent until somebody asks. */
  #events: readonly unknown[] | undefined;
  readonly #encoded: EncodedEvent[];
  readonly #written: WrittenEvents | undefined;
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
    this.span =
      written?.span ??
      encoded.reduce((span, { rank }) => widen(span, { from: rank, to: rank }), NO_SPAN);
  }

  /** @param events - as they came, one for each that is encoded */
  static ofEncoded(
    kind: EventKind,
    events: readonly unknown[],
    encoded: EncodedEvent[],
  ): EventList {
    return new EventList(kind, events.length, { events, encoded });
  }

  /** @param written - events that `encodeEvent` takes as they are */
  static ofText(kind: EventKind, written: WrittenEvents): EventList {
    return new EventList(kind, written.times.length, { written });
  }

  /** The event as it came. */
  eventAt(index: number): unknown {
    this.#events ??= JSON.parse(`[${this.#written?.text}]`) as unknown[];
    return this.#events[index];
  }

  encodedAt(index: number): EncodedEvent {
    // As somebody else wrote it, it was not too large; in our own way it may be longer.
    return (this.#encoded[index] ??= encodeRight(
      this.#kind,
      this.eventAt(index) as RightEvent,
      Infinity,
    ));
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
   * The lines of the events from `from` to before `to`.
   *
   * @returns undefined if these would have less digits than the JSON
   */
  lines(from: number, to: number, linesOf: LinesOf): Lines | undefined {
    if (this.#written && !this.#isForgotten) {
      const { isExact, lines } = this.#written;
      if (!isExact) return undefined;
      if (lines && from === 0 && to === this.length) return lines;
    }
    const json = `[${this.json(from, to)}]`;
    return linesOf(JSON.parse(json) as unknown[], !json.includes('\\'));
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
