import type { RunStatement } from '../../database/client.ts';
import { LEDGER_END } from '../../ledger/ledger.ts';
import type { EventKind } from '../../queues/events.ts';
import type { Batch } from '../batch.ts';
import { memoryAccess } from './memoryAccess.ts';
import { metrics } from './metrics.ts';
import { sessionEvent } from './sessionEvent.ts';
import { transition } from './transition.ts';
import type { Writer, WriteResult } from './writer.ts';

export type { WriteResult } from './writer.ts';

/** The writer of each kind; the compiler names the kind that has none. */
const WRITERS: Readonly<Record<EventKind, Writer>> = {
  'memory-access': memoryAccess,
  transition,
  metrics,
  'session-event': sessionEvent,
};

/** What is run for a batch; its parameters are those of `LEDGER_END`, and the events. */
export const statementOf = (kind: EventKind): string => WRITERS[kind].sql + LEDGER_END;

/**
 * Runs a kind's statement on a batch of encoded events.
 *
 * @param writerId - UUID of this process, for the ledger
 */
export async function writeBatch(
  run: RunStatement,
  kind: EventKind,
  writerId: string,
  { events, starts, jobs }: Batch,
): Promise<WriteResult> {
  const parameters = [events, `{${starts.join(',')}}`, jobs, writerId, kind];
  const [row] = await run<{ inserted: number; waiting: string }>(statementOf(kind), parameters);
  if (!row) throw new Error('the statement returned nothing');
  return { inserted: row.inserted, waiting: JSON.parse(row.waiting) as WriteResult['waiting'] };
}
