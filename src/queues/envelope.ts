import { z } from 'zod';

import { InvalidEventError } from '../errors.ts';
import { EventList } from './eventList.ts';
import { encodeEvent, isRight, MAX_EVENT_BYTES, type EncodedEvent } from './eventEncoding.ts';
import type { EventKind } from './events.ts';

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
  return `{"v":${VERSION},${ledger}"events":[${events.map((event) => event.json).join(',')}]}`;
}

/** Bytes of an envelope around its events at most, without the commas between them. */
export const ENVELOPE_BYTES = packEnvelope([], {
  id: '00000000-0000-0000-0000-000000000000',
  accepted: Number.MAX_SAFE_INTEGER,
  dropped: Number.MAX_SAFE_INTEGER,
}).length;

const UUID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}';

/** How an envelope begins and ends as `packEnvelope` writes it, and as `jsonb` has it. */
const WRITTEN = [
  {
    head: new RegExp(
      `^\\{"v":1,(?:"producer":\\{"id":"${UUID}","accepted":\\d+,"dropped":\\d+\\},)?"events":\\[`,
    ),
    tail: /\]\}$/,
  },
  {
    head: /^\{"v": 1, "events": \[/,
    tail: new RegExp(
      `\\](?:, "producer": \\{"id": "${UUID}", "dropped": \\d+, "accepted": \\d+\\})?\\}$`,
    ),
  },
] as const;

const MEMBERS: ReadonlySet<string> = new Set(['v', 'producer', 'events']);

/** Longer than any tail. */
const TAIL_LENGTH = 160;

/**
 * The JSON of an envelope's events as it stands in the job's text, where it can be cut out: writing
 * it again would cost more than checking it did.
 *
 * What is cut out begins at the first member `events`. Were there another one after it, or anything
 * else but the tail, then the cut has more closing than opening brackets somewhere, and PostgreSQL
 * refuses it as JSON; the writer then goes back to JSON of its own. Escapes are left to `encodeEvent`,
 * since U+0000 and lone surrogates are among them.
 */
function eventsText(data: object, text: string): string | undefined {
  if (text.length > MAX_EVENT_BYTES || text.includes('\\u')) return undefined;
  if (!Object.keys(data).every((name) => MEMBERS.has(name))) return undefined;
  const end = text.slice(-TAIL_LENGTH);
  for (const { head, tail } of WRITTEN) {
    const begun = head.exec(text)?.[0].length;
    const ended = tail.exec(end)?.[0].length;
    if (begun !== undefined && ended !== undefined) return text.slice(begun, -ended);
  }
  return undefined;
}

/**
 * Reads a job's data, which anybody may have written.
 *
 * @param text - the JSON that `data` was parsed from, where it is at hand
 * @throws {InvalidEventError} when it is no envelope of this version
 */
export function openEnvelope(kind: EventKind, data: unknown, text?: string): OpenedEnvelope {
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
  // A foreign producer may have written anything here; its events are none the worse for it.
  const ledger = PRODUCER_LEDGER.safeParse(producer).data;
  const from = ledger && { producer: ledger };
  const written = text === undefined ? undefined : eventsText(data, text);
  if (written !== undefined && events.every((event) => isRight(kind, event))) {
    return { valid: EventList.ofText(kind, events, written), refused: [], ...from };
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
  return { valid: EventList.ofEncoded(kind, valid, encoded), refused, ...from };
}
