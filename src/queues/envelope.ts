import { z } from 'zod';

import { InvalidEventError } from '../errors.ts';
import { encodeEvent, type EncodedEvent, type EventKind } from './events.ts';

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
  /** `event` is kept beside its encoding, since a job that fails in part keeps it as it came. */
  valid: { event: unknown; encoded: EncodedEvent }[];
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
  // A foreign producer may have written anything here; its events are none the worse for it.
  const ledger = PRODUCER_LEDGER.safeParse(producer).data;
  const opened: OpenedEnvelope = { valid: [], refused: [], ...(ledger && { producer: ledger }) };
  for (const event of events) {
    try {
      opened.valid.push({ event, encoded: encodeEvent(kind, event) });
    } catch (error) {
      if (!(error instanceof InvalidEventError)) throw error;
      opened.refused.push({ event, reason: error.message });
    }
  }
  return opened;
}
