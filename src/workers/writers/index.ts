import type { Database } from '../../database/client.ts';
import { sqlState } from '../../database/faults.ts';
import { LEDGER_END } from '../../ledger/ledger.ts';
import type { Lines, LinesOf } from '../../queues/eventList.ts';
import type { EventKind } from '../../queues/events.ts';
import { eventsOf, jobsOf, rowsOf, startsOf, type Batch } from '../batch.ts';
import { createCopy } from './copy.ts';
import { memoryAccess } from './memoryAccess.ts';
import { metrics } from './metrics.ts';
import { linesOf } from './rows.ts';
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

/** What is run for any batch; its parameters are the events, and those of `LEDGER_END`. */
export const statementOf = (kind: EventKind): string => WRITERS[kind].sql + LEDGER_END;

/** The lines that a kind's new events are for COPY, which are best made when the events are read. */
export const linesOfKind = (kind: EventKind): LinesOf => linesOf(WRITERS[kind].tables);

/** What `createCopy` fails with where a batch may be written all the same. */
const NOT_COPIED: ReadonlySet<string | undefined> = new Set([
  '23503', // foreign_key_violation: an event waits for its parent
  '23505', // unique_violation: an event is a row
  '22012', // division_by_zero: COPY would not tell which events became rows
  '55P03', // lock_not_available: somebody else is writing an event, or has its parent
  '0A000', // feature_not_supported: COPY into a table with row-level security
]);

/**
 * Batches, all of whose events were new, until the next is taken for new again. A batch that is not
 * is written twice, and leaves what a vacuum must remove: so that is one in so many at most, and it
 * costs no more there than is gained elsewhere.
 */
const TRUST_AFTER = 8;

/**
 * Makes what writes a kind's batches of events. Events are hardly ever delivered twice, and
 * mostly come after their parents, so a batch is first taken for new. Where it is not, it is written
 * as `Writer` says, and so are those after it, until enough were new after all.
 *
 * @param writerId - UUID for the ledger, of somebody who writes one batch of a kind at a time: a lane of this process
 */
export function createWrite(
  database: Pick<Database, 'run' | 'runTogether'>,
  kind: EventKind,
  writerId: string,
) {
  const any = statementOf(kind);
  const copy = createCopy(database, kind, WRITERS[kind], writerId);
  const toLines = linesOfKind(kind);
  let distrust = 0;

  /** Undefined if those of a job would tell less than its JSON. */
  function linesOfAll(batch: Batch): Lines[] | undefined {
    const all: Lines[] = [];
    for (const { events, from, to } of batch) {
      const lines = events.lines(from, to, toLines);
      if (!lines) return undefined;
      all.push(lines);
    }
    return all;
  }

  async function isCopied(batch: Batch, lines: readonly Lines[]): Promise<boolean> {
    try {
      return await copy(batch, lines);
    } catch (error) {
      if (NOT_COPIED.has(sqlState(error))) return false;
      throw error;
    }
  }

  return async function write(batch: Batch): Promise<WriteResult> {
    const rows = rowsOf(batch);
    const lines = distrust === 0 ? linesOfAll(batch) : undefined;
    if (lines) {
      if (await isCopied(batch, lines)) return { inserted: rows, waiting: [] };
      distrust = TRUST_AFTER + 1;
    }
    const [row] = await database.run<{ inserted: number; waiting: string }>(any, [
      jobsOf(batch),
      writerId,
      kind,
      eventsOf(batch),
      `{${startsOf(batch).join(',')}}`,
    ]);
    if (!row) throw new Error('the statement returned nothing');
    const { inserted } = row;
    distrust = inserted < rows ? TRUST_AFTER : Math.max(distrust - 1, 0);
    return { inserted, waiting: JSON.parse(row.waiting) as WriteResult['waiting'] };
  };
}
