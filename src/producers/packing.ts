import { ENVELOPE_BYTES, packEnvelope } from '../queues/envelope.ts';
import type { SpoolRecord } from './spool/record.ts';

/** When events are packed into one job. */
export interface PackLimits {
  maxEvents: number;
  maxBytes: number;
  maxWaitMs: number;
}

/** How many of the events from `first` on go into one job: at least one. */
export function packLength(
  events: readonly { bytes: number }[],
  first: number,
  { maxEvents, maxBytes }: PackLimits,
): number {
  let bytes = ENVELOPE_BYTES;
  let end = first;
  for (; end < events.length && end - first < maxEvents; end++) {
    bytes += (events[end] as { bytes: number }).bytes + 1;
    if (end > first && bytes > maxBytes) break;
  }
  return end - first;
}

/** Packs records of one kind: the envelopes that bring them. */
export function* packRecords(
  records: SpoolRecord[],
  producerId: string,
  limits: PackLimits,
): Generator<string> {
  const sized = records.map((record) => ({ record, bytes: Buffer.byteLength(record.json) }));
  for (let first = 0; first < sized.length;) {
    const length = packLength(sized, first, limits);
    const events = records.slice(first, first + length);
    const ledger = {
      id: producerId,
      accepted: Math.max(...events.map(({ accepted }) => accepted)),
      dropped: Math.max(...events.map(({ dropped }) => dropped)),
    };
    yield packEnvelope(events, ledger);
    first += length;
  }
}
