import { z } from 'zod';

import { InvalidEventError } from '../errors.ts';
import { EventList, type LinesOf, type WrittenEvents } from './eventList.ts';
import {
  encodeEvent,
  isRight,
  MAX_EVENT_BYTES,
  type EncodedEvent,
  type RightEvent,
} from './eventEncoding.ts';
import { timeOf } from './eventTime.ts';
import type { EventKind } from './events.ts';
import { NO_SPAN, rankOf } from './rank.ts';

/** The only version there is. A change that an older worker could not read takes a new one. */
const VERSION = 1;

/** What a job's data is: one or many events of the queue's kind. */
export interface Envelope {
  v: typeof VERSION;
  producer?: ProducerLedger;
  events: unknown[];
  /** Of a dead letter: why its events could not be stored. Written by workers, for people. */
  reasons?: EventReason[];
}

/** What some events of a dead letter have in common. */
export interface EventReason {
  reason: string;
  /** Their places in `events`, from 0. */
  events: number[];
}

/**
 * What a producer has counted of this kind when it packed the envelope, since its start. The counts
 * only grow, but envelopes arrive in any order and more than once: readers take the greatest.
 */
export const PRODUCER_LEDGER = z.object({
  /** UUID of the producer: one start of one process. */
  id: z.uuid().toLowerCase(),
  /** Events that it accepted, dropped ones included. */
  accepted: z.int().min(0),
  /** Accepted events that it lost for want of room or of time. */
  dropped: z.int().min(0),
});

export type ProducerLedger = z.output<typeof PRODUCER_LEDGER>;

/** An event of a job that cannot be stored as it is, kept as it came. */
export interface RefusedEvent {
  event: unknown;
  reason: string;
}

export interface OpenedEnvelope {
  valid: EventList;
  refused: RefusedEvent[];
  /** Absent where the job has none, or none that can be read. */
  producer?: ProducerLedger;
}

/** Envelope text of events that are encoded already; their JSON is not parsed again. */
export function packEnvelope(
  events: readonly Pick<EncodedEvent, 'json'>[],
  producer?: ProducerLedger,
): string {
  const ledger = producer ? `"producer":${JSON.stringify(producer)},` : '';
  const texts = events.map(({ json }) => json).join(',');
  // A template would leave three pieces, which are put together anew whenever the text is measured or sent.
  return [`{"v":${VERSION},${ledger}"events":[`, texts, ']}'].join('');
}

/** Bytes of an envelope around its events at most, without the commas between them. */
export const ENVELOPE_BYTES = packEnvelope([], {
  id: '00000000-0000-0000-0000-000000000000',
  accepted: Number.MAX_SAFE_INTEGER,
  dropped: Number.MAX_SAFE_INTEGER,
}).length;

const UUID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}';

/** A count as JSON has it. */
const COUNT = '(?:0|[1-9][0-9]*)';

/**
 * Events in a job at most, twice what a producer may be told to pack. Checking millions at once
 * would keep the process from renewing the locks of all its jobs, and the job would never end.
 */
export const MAX_EVENTS = 20_000;

/** How an envelope begins and ends as `packEnvelope` writes it, and as `jsonb` has it. */
const WRITTEN = [
  {
    head: new RegExp(
      `^\\{"v":1,(?:"producer":(?<producer>\\{"id":"${UUID}","accepted":${COUNT},"dropped":${COUNT}\\}),)?"events":\\[`,
    ),
    tail: /\]\}$/,
  },
  {
    head: /^\{"v": 1, "events": \[/,
    tail: new RegExp(
      `\\](?:, "producer": (?<producer>\\{"id": "${UUID}", "dropped": ${COUNT}, "accepted": ${COUNT}\\}))?\\}$`,
    ),
  },
] as const;

/** Where one event ends and the next begins, as `packEnvelope` writes it, and as `jsonb` has it; and perhaps elsewhere. */
const BETWEEN = /\}, ?\{"id": ?"/;

/** More than what `BETWEEN` takes from an event. */
const BETWEEN_BYTES = 20;

/** Longer than any tail. */
const TAIL_LENGTH = 160;

/**
 * Reads a job's text as `packEnvelope` or `jsonb` wrote it, if all of its events are right. Almost every
 * job is of that kind. No more is kept of the events than their JSON, as it stands in the text, their
 * times, and the lines that they become: writing that JSON again would cost more than checking it did, and objects that outlive a write
 * cost the garbage collector more than reading them again costs the few who want them. Escapes are left
 * to `encodeEvent`, since U+0000 and lone surrogates are among them.
 *
 * @param linesOf - makes the lines that are written of the events, since they are at hand here
 */
export function openText(
  kind: EventKind,
  text: string,
  linesOf?: LinesOf,
): OpenedEnvelope | undefined {
  if (text.includes('\\u')) return undefined;
  const end = text.slice(-TAIL_LENGTH);
  for (const { head, tail } of WRITTEN) {
    const [begun, ended] = [head.exec(text), tail.exec(end)];
    if (!begun || !ended) continue;
    // Whatever stands between: if it is an array, then the text is an envelope with these events.
    const list = text.slice(begun[0].length - 1, 1 - ended[0].length);
    const seen = look(kind, list, linesOf);
    if (!seen) continue;
    const producer = begun.groups?.['producer'] ?? ended.groups?.['producer'];
    return {
      valid: EventList.ofText(kind, { ...seen, text: list.slice(1, -1) }),
      refused: [],
      ...(producer && ledgerOf(JSON.parse(producer))),
    };
  }
  return undefined;
}

/** Looks at the events of a JSON array, if all of them are right. */
function look(
  kind: EventKind,
  list: string,
  linesOf?: LinesOf,
): Omit<WrittenEvents, 'text'> | undefined {
  let events: unknown[];
  try {
    events = JSON.parse(list) as unknown[];
  } catch {
    return undefined;
  }
  if (events.length > MAX_EVENTS) return undefined;
  const times: number[] = [];
  let { from, to } = NO_SPAN;
  for (const event of events) {
    if (!isRight(kind, event)) return undefined;
    times.push(timeOf(event.occurredAt));
    const rank = rankOf(kind, event);
    if (rank < from) from = rank;
    if (rank > to) to = rank;
  }
  if (!areSmall(list, events as RightEvent[])) return undefined;
  const lines = linesOf?.(events, !list.includes('\\'));
  return { times, span: { from, to }, isExact: isExact(kind, list), lines };
}

/** Whether no event of a JSON array has too many bytes. May say no where one has almost too many. */
function areSmall(list: string, events: readonly RightEvent[]): boolean {
  const isSmall = (json: string) =>
    json.length * 3 + BETWEEN_BYTES <= MAX_EVENT_BYTES || // of UTF-16 code units, no more than 3 bytes each
    Buffer.byteLength(json) + BETWEEN_BYTES <= MAX_EVENT_BYTES;
  if (isSmall(list)) return true;
  const pieces = list.split(BETWEEN);
  const areEvents =
    pieces.length === events.length &&
    pieces.every((piece, n) => n === 0 || piece.startsWith((events[n] as RightEvent).id));
  const texts = areEvents ? pieces : events.map((event) => JSON.stringify(event));
  return texts.every(isSmall);
}

/**
 * Of the fields that hold JSON, as they stand in it, one without which there is no other. All other numbers
 * are stored as JavaScript has them.
 */
const JSON_FIELDS: Readonly<Record<EventKind, readonly string[]>> = {
  'memory-access': [],
  transition: ['"transitionData"'],
  metrics: ['"metadata"'],
  'session-event': ['"eventData"'],
};

/**
 * A number of which JavaScript might not keep all digits: it keeps 15 at least, but less of the smallest. Or what looks like
 * one, in a text.
 */
const LONG_NUMBER = /[:,[]\s*(-?(?:[\d.]{16,}(?:[eE][-+]?\d+)?|[\d.]+[eE]-\d{3,}))/g;

/**
 * Whether all numbers in JSON of some events have the same value once JavaScript has read them. May say no where
 * they have.
 */
function isExact(kind: EventKind, text: string): boolean {
  if (!JSON_FIELDS[kind].some((field) => text.includes(field))) return true;
  for (const [, number] of text.matchAll(LONG_NUMBER)) {
    if (String(Number(number)) !== number) return false;
  }
  return true;
}

/** A foreign producer may have written anything here; its events are none the worse for it. */
function ledgerOf(producer: unknown): Pick<OpenedEnvelope, 'producer'> {
  const ledger = PRODUCER_LEDGER.safeParse(producer).data;
  return ledger ? { producer: ledger } : {};
}

/**
 * Reads a job's data, which anybody may have written.
 *
 * @throws {InvalidEventError} when it is no envelope of this version
 */
export function openEnvelope(kind: EventKind, data: unknown): OpenedEnvelope {
  if (typeof data !== 'object' || data === null) {
    throw new InvalidEventError(
      `the job holds ${data === null ? 'null' : typeof data}, not an envelope {"v":1,"events":[…]}`,
    );
  }
  const { v, events, producer } = data as Partial<Record<keyof Envelope, unknown>>;
  if (v !== VERSION) {
    throw new InvalidEventError(
      `v: the envelope's version is ${JSON.stringify(v)?.slice(0, 40)}, this worker reads ${VERSION}`,
      { field: 'v' },
    );
  }
  if (!Array.isArray(events)) {
    throw new InvalidEventError('events: the envelope takes an array of events', {
      field: 'events',
    });
  }
  const valid: unknown[] = [];
  const encoded: EncodedEvent[] = [];
  const refused: RefusedEvent[] = [];
  for (const event of events) {
    try {
      encoded.push(encodeEvent(kind, event));
      valid.push(event);
    } catch (error) {
      if (!(error instanceof InvalidEventError)) throw error;
      refused.push({ event, reason: error.message });
    }
  }
  return { valid: EventList.ofEncoded(kind, valid, encoded), refused, ...ledgerOf(producer) };
}
