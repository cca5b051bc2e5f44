import { InvalidEventError } from '../errors.ts';
import { encodeEvent, type EncodedEvent, type EventKind } from './events.ts';

/** The only version there is. A change that an older worker could not read takes a new one. */
const VERSION = 1;

/** What a job's data is: one or many events of the queue's kind. */
export interface Envelope {
  v: typeof VERSION;
  events: unknown[];
}

/** An event of a job that cannot be stored as it is, kept as it came. */
export interface RefusedEvent {
  event: unknown;
  reason: string;
}

export interface OpenedEnvelope {
  /** `event` is kept beside its encoding, since a job that fails in part keeps it as it came. */
  valid: { event: unknown; encoded: EncodedEvent }[];
  refused: RefusedEvent[];
}

/** Envelope text of events that are encoded already; their JSON is not parsed again. */
export function packEnvelope(events: readonly EncodedEvent[]): string {
  return `{"v":${VERSION},"events":[${events.map((event) => event.json).join(',')}]}`;
}

/** Bytes of an envelope around its events: `{"v":1,"events":[]}` without the commas between them. */
export const ENVELOPE_BYTES = packEnvelope([]).length;

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
  const { v, events } = data as Partial<Envelope>;
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
  const opened: OpenedEnvelope = { valid: [], refused: [] };
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
