import { ENVELOPE_BYTES, packEnvelope } from '../queues/envelope.ts';
import type { SpoolRecord } from './spool/record.ts';

/** When events are packed into one job. */
export interface PackLimits {
  maxEvents: number;
  maxBytes: number;
  maxWaitMs: number;
}

/**
 * What one call to the queue takes at most, and so what a retry repeats. With 16 jobs calls were late on
 * a busy machine, and held up the event loop while they were packed (docs/performance.md); 4 are one
 * statement on PostgreSQL.
 */
export const MAX_CALL = { jobs: 4, bytes: 4 * 1024 * 1024 };

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

/** Packs records of one kind: the calls to the queue, each of several envelopes, that bring them. */
export function* packCalls(
  records: SpoolRecord[],
  producerId: string,
  limits: PackLimits,
): Generator<string[]> {
  const sized = records.map((record) => ({ record, bytes: Buffer.byteLength(record.json) }));
  let envelopes: string[] = [];
  let bytes = 0;
  for (let first = 0; first < sized.length;) {
    const length = packLength(sized, first, limits);
    const events = records.slice(first, first + length);
    const ledger = {
      id: producerId,
      accepted: Math.max(...events.map(({ accepted }) => accepted)),
      dropped: Math.max(...events.map(({ dropped }) => dropped)),
    };
    const envelope = packEnvelope(events, ledger);
    envelopes.push(envelope);
    bytes += envelope.length;
    first += length;
    if (envelopes.length === MAX_CALL.jobs || bytes >= MAX_CALL.bytes) {
      yield envelopes;
      [envelopes, bytes] = [[], 0];
    }
  }
  if (envelopes.length > 0) yield envelopes;
}
