import { classifyFault, serverMessage, sqlState } from '../database/faults.ts';
import { one, type Sql } from './database.ts';
import { fill, fillChunk, quarantine, type Progress } from './fill.ts';
import type { Phase, Place } from './lanes.ts';
import {
  countStaleSql,
  listRemainingSql,
  needs,
  undoSql,
  unsetStaleSql,
  withIds,
  writtenInputSql,
  type Transform,
} from './transform.ts';

/** A lane under the lock of the transaction that works on it. */
export interface Lane {
  id: number;
  runId: string;
  phase: Phase;
  low: Place;
  cursor: Place;
  high: Place;
  chunkRows: number;
  rowsPassed: number;
  transform: Transform;
}

export interface Outcome extends Progress {
  /** For `settle`: too much is left, and the table has to be swept again. */
  again?: boolean;
}

/** One chunk of each phase, within a transaction. */
export const PHASES: Record<Phase, (sql: Sql, lane: Lane) => Promise<Outcome>> = {
  fill: (sql, lane) => fillChunk(sql, lane.transform, lane.runId, lane, lane.chunkRows),

  /** What came in or moved behind a cursor, or was locked when a chunk passed. */
  sweep: (sql, lane) => fillChunk(sql, lane.transform, lane.runId, lane, lane.chunkRows),

  /**
   * Makes good what is no longer as it should be of what a chunk wrote: the source may have been
   * changed behind the cursor, and a state may have come in between two others.
   */
  check: (sql, lane) =>
    eachLogged(sql, lane, async (logId) => {
      const computed = await computeWritten(sql, lane.transform, logId);
      const stale = await sql.query<{ id: string }>(unsetStaleSql(lane.transform), [
        computed,
        logId,
      ]);
      if (stale.rows.length === 0) return 0;
      const ids = stale.rows.map(({ id }) => id);
      return fill(sql, lane.transform, lane.runId, withIds(ids));
    }),

  settle,

  undo: (sql, lane) =>
    eachLogged(
      sql,
      lane,
      async (logId) =>
        (await one<{ changed: number }>(sql, undoSql(lane.transform), [logId])).changed,
    ),
};

/** Takes the next chunk of the log after the lane's cursor. */
async function eachLogged(
  sql: Sql,
  { transform, cursor, high }: Lane,
  work: (logId: number) => Promise<number>,
): Promise<Outcome> {
  const { rows } = await sql.query<{ id: number; passed: number }>(
    `SELECT "id", json_array_length("rows") AS "passed" FROM "BackfillUndo"
     WHERE "tableName" = $1 AND "id" > $2 AND "id" <= $3 ORDER BY "id" LIMIT 1`,
    [transform.name, cursor, high],
  );
  const next = rows[0];
  if (!next) return { cursor, passed: 0, changed: 0, isDone: true };
  const changed = await work(next.id);
  return { cursor: next.id, passed: next.passed, changed, isDone: false };
}

/** Counts the values of a chunk of the log that are not as they should be; changes nothing. */
export async function countStale(sql: Sql, transform: Transform, logId: number): Promise<number> {
  const computed = await computeWritten(sql, transform, logId);
  return (await one<{ differing: number }>(sql, countStaleSql(transform), [computed, logId]))
    .differing;
}

async function computeWritten(sql: Sql, transform: Transform, logId: number): Promise<string> {
  const computed: Record<string, string> = {};
  const { computation } = transform;
  if (computation) {
    const { rows } = await sql.query<{ id: string; input: string }>(
      writtenInputSql(transform, computation),
      [logId],
    );
    for (const { id, input } of rows) computed[id] = computation.compute(input);
  }
  return JSON.stringify(computed);
}

/** Rows that the first settling takes on; each later one takes four times as many. */
const SETTLE_ROWS = 5000;

/** Rows that it fills in by one statement: all of them may have to be in memory. */
const SETTLE_PART = 500;

/**
 * Ends a run at one moment of the database. The transaction is REPEATABLE READ: it sees the table
 * as of its start, fills in what is left there, and so leaves none as of that moment, whatever is
 * inserted while it works. A row that somebody changes meanwhile makes it fail and start over, and
 * so does one that is locked: they are few, since the table was swept right before. If too much
 * is left the lanes sweep once more; since the bound grows, the run ends however fast rows come in.
 */
async function settle(sql: Sql, lane: Lane): Promise<Outcome> {
  const { transform, runId } = lane;
  const { earlier } = await one<{ earlier: number }>(
    sql,
    `SELECT count(*)::int AS "earlier" FROM "BackfillLane" WHERE "runId" = $1 AND "phase" = 'settle' AND "isDone"`,
    [runId],
  );
  const bound = SETTLE_ROWS * 4 ** Math.min(earlier, 10);
  const { rows } = await sql.query<{ id: string }>(listRemainingSql(transform), [runId, bound + 1]);
  const ids = rows.map(({ id }) => id);
  const outcome: Outcome = { cursor: lane.high, passed: 0, changed: 0, isDone: true };
  if (ids.length > bound) return { ...outcome, again: true };
  try {
    for (let first = 0; first < ids.length; first += SETTLE_PART) {
      const part = ids.slice(first, first + SETTLE_PART);
      outcome.changed += await fillIds(sql, transform, runId, part);
    }
  } catch (error) {
    if (sqlState(error) !== UNIQUE_VIOLATION) throw error;
    return { ...outcome, again: true };
  }
  const left = await one<{ remaining: number }>(
    sql,
    `SELECT count(*)::int AS "remaining" FROM "${transform.table}" t
     WHERE t."id" = ANY ($1::text[]) AND ${needs(transform)}
       AND NOT EXISTS (SELECT FROM "BackfillQuarantine" q WHERE q."runId" = $2::uuid AND q."rowId" = t."id")`,
    [ids, runId],
  );
  await sql.query(
    `UPDATE "BackfillRun" r
     SET "remaining" = $2, "differing" = 0, "finishedAt" = clock_timestamp() AT TIME ZONE 'utc',
       "status" = CASE WHEN $2 = 0 AND NOT EXISTS (SELECT FROM "BackfillQuarantine" q WHERE q."runId" = r."id")
         THEN 'completed' ELSE 'completed_with_errors' END
     WHERE "id" = $1 AND "status" = 'running'`,
    [runId, left.remaining],
  );
  return outcome;
}

const UNIQUE_VIOLATION = '23505';

async function fillIds(
  sql: Sql,
  transform: Transform,
  runId: string,
  ids: readonly string[],
): Promise<number> {
  if (ids.length === 0) return 0;
  try {
    await sql.query('SAVEPOINT part');
    const changed = await fill(sql, transform, runId, withIds(ids), 'NOWAIT');
    await sql.query('RELEASE SAVEPOINT part');
    return changed;
  } catch (error) {
    if (classifyFault(error) !== 'data') throw error;
    await sql.query('ROLLBACK TO SAVEPOINT part');
    // This snapshot cannot tell a value that is taken for good from one that was taken just now.
    if (sqlState(error) === UNIQUE_VIOLATION) throw error;
    if (ids.length === 1) {
      await quarantine(sql, runId, ids[0] as string, serverMessage(error));
      return 0;
    }
    const middle = ids.length >> 1;
    return (
      (await fillIds(sql, transform, runId, ids.slice(0, middle))) +
      (await fillIds(sql, transform, runId, ids.slice(middle)))
    );
  }
}
