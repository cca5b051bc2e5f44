import type { RunStatement } from '../../database/client.ts';
import { sqlState } from '../../database/faults.ts';
import { LEDGER_END, LEDGER_END_OF_NEW } from '../../ledger/ledger.ts';
import type { EventKind } from '../../queues/events.ts';
import type { Batch } from '../batch.ts';
import { memoryAccess } from './memoryAccess.ts';
import { metrics } from './metrics.ts';
import { sessionEvent } from './sessionEvent.ts';
import { transition } from './transition.ts';
import { UNLESS_KNOWN, type Writer, type WriteResult } from './writer.ts';

export type { WriteResult } from './writer.ts';

/** The writer of each kind; the compiler names the kind that has none. */
const WRITERS: Readonly<Record<EventKind, Writer>> = {
  'memory-access': memoryAccess,
  transition,
  metrics,
  'session-event': sessionEvent,
};

/** What is run for a batch; its parameters are the events, and those of `LEDGER_END`. */
export const statementOf = (kind: EventKind): string => WRITERS[kind].sql + LEDGER_END;

/**
 * The same for a batch of which no event is a row yet, and none waits for its parent; with any other
 * it fails, and nothing is written. So it need not tell one event from another, for which PostgreSQL
 * takes a seventh less time and a tenth less of its log.
 */
export const statementOfNew = (kind: EventKind): string => {
  const { sql, ofNew = sql.replaceAll(UNLESS_KNOWN, '') } = WRITERS[kind];
  return ofNew + LEDGER_END_OF_NEW;
};

/** What that fails with. */
const NOT_NEW: ReadonlySet<string | undefined> = new Set([
  '23502', // not_null_violation, by the ledger: an event waits
  '23503', // foreign_key_violation: the same
  '23505', // unique_violation: an event is a row
]);

/**
 * Batches, all of whose events were new, until the next is taken for new again. A batch that is not
 * is written twice, and leaves what a vacuum must remove: so that is one in so many at most, and it
 * costs no more there than is gained elsewhere.
 */
const TRUST_AFTER = 8;

/**
 * Makes what writes a kind's batches of encoded events. Events are hardly ever delivered twice, and
 * mostly come after their parents, so a batch is first taken for new. Where it is not, it is written
 * as `Writer` says, and so are those after it, until enough were new after all.
 *
 * @param writerId - UUID for the ledger, of somebody who writes one batch of a kind at a time: a lane of this process
 */
export function createWrite(run: RunStatement, kind: EventKind, writerId: string) {
  const [ofNew, ofAny] = [statementOfNew(kind), statementOf(kind)];
  let distrust = 0;
  return async function write({ events, starts, jobs, rows }: Batch): Promise<WriteResult> {
    const parameters = [jobs, writerId, kind, events];
    if (distrust === 0) {
      try {
        await run(ofNew, parameters);
        return { inserted: rows, waiting: [] };
      } catch (error) {
        if (!NOT_NEW.has(sqlState(error))) throw error;
      }
    }
    const [row] = await run<{ inserted: number; waiting: string }>(ofAny, [
      ...parameters,
      `{${starts.join(',')}}`,
    ]);
    if (!row) throw new Error('the statement returned nothing');
    const { inserted } = row;
    distrust = inserted < rows ? TRUST_AFTER : Math.max(distrust - 1, 0);
    return { inserted, waiting: JSON.parse(row.waiting) as WriteResult['waiting'] };
  };
}
