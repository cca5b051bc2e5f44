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

/** What is run for a batch; its parameters are those of `LEDGER_END`, and the events. */
export const statementOf = (kind: EventKind): string => WRITERS[kind].sql + LEDGER_END;

/**
 * The same for a batch of which no event is a row yet; with any other it fails, and nothing is
 * written. So it need not tell one event from another, for which PostgreSQL takes an eighth less
 * time and a tenth less of its log.
 */
const statementOfNew = (kind: EventKind): string =>
  WRITERS[kind].sql.replaceAll(UNLESS_KNOWN, '') + LEDGER_END_OF_NEW;

const UNIQUE_VIOLATION = '23505';

/**
 * Makes what writes a kind's batches of encoded events. Events are hardly ever delivered twice, so a
 * batch is first taken for new. Where it is not, it is written as `Writer` says, and so is each batch
 * after it, until one was new after all: a redelivery costs one failed statement, not one a batch.
 *
 * @param writerId - UUID of this process, for the ledger
 */
export function createWrite(run: RunStatement, kind: EventKind, writerId: string) {
  const [ofNew, ofAny] = [statementOfNew(kind), statementOf(kind)];
  let mayBeKnown = false;
  return async function write(batch: Batch): Promise<WriteResult> {
    const { events, starts, jobs, rows } = batch;
    const parameters = [events, `{${starts.join(',')}}`, jobs, writerId, kind];
    const execute = async (sql: string): Promise<WriteResult> => {
      const [row] = await run<{ inserted: number; waiting: string }>(sql, parameters);
      if (!row) throw new Error('the statement returned nothing');
      return { inserted: row.inserted, waiting: JSON.parse(row.waiting) as WriteResult['waiting'] };
    };
    if (!mayBeKnown) {
      try {
        return await execute(ofNew);
      } catch (error) {
        if (sqlState(error) !== UNIQUE_VIOLATION) throw error;
      }
    }
    const result = await execute(ofAny);
    mayBeKnown = result.inserted + result.waiting.length < rows;
    return result;
  };
}
