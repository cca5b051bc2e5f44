import { one, type Sql } from './database.ts';
import { computeAll, fill, fillChunk, fillIds, type Progress, type RowInput } from './fill.ts';
import type { Phase, Place } from './lanes.ts';
import { byParts } from './parts.ts';
import {
  countStaleSql,
  listRemainingSql,
  listStaleSql,
  lockedInputSql,
  remains,
  remakeStaleSql,
  undoSql,
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
  /** Milliseconds until it makes sense to go on. */
  waitMs?: number;
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
  check: (sql, { transform, runId, ...lane }) =>
    eachLogged(sql, { transform, ...lane }, async (logId) => {
      const computed = await computeWritten(sql, transform, logId, runId);
      const stale = await sql.query<{ id: string }>(listStaleSql(transform), [computed, logId]);
      const ids = stale.rows.map(({ id }) => id);
      return byParts(sql, runId, ids, async (part) => {
        // They are locked by now, and may have changed since the first look.
        const present = await computeLocked(sql, transform, runId, part);
        const remake = remakeStaleSql(transform);
        const { changed } = await one<{ changed: number }>(sql, remake, [
          present,
          logId,
          part,
          runId,
        ]);
        // What a link that was remade makes room for.
        return changed + (await fill(sql, transform, runId, withIds(part)));
      });
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
  { transform, cursor, high }: Pick<Lane, 'transform' | 'cursor' | 'high'>,
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

async function computeWritten(
  sql: Sql,
  transform: Transform,
  logId: number,
  runId?: string,
): Promise<string> {
  const { computation } = transform;
  if (!computation) return '{}';
  const { rows } = await sql.query<RowInput>(writtenInputSql(transform, computation), [logId]);
  return computeAll(sql, runId, rows, computation.compute);
}

async function computeLocked(
  sql: Sql,
  transform: Transform,
  runId: string,
  ids: readonly string[],
): Promise<string> {
  const { computation } = transform;
  if (!computation) return '{}';
  const { rows } = await sql.query<RowInput>(lockedInputSql(transform, computation), [ids]);
  return computeAll(sql, runId, rows, computation.compute);
}

/** Rows that the first settling takes on; each later one takes four times as many, up to a million. */
const SETTLE_ROWS = 5000;
const SETTLE_GROWTH = 4;

/** Milliseconds until rows that others have locked are looked at again. */
const LOCKED_MS = 1000;

/**
 * Ends a run. As of the moment at which `listRemaining` looks at the table, and that has no other
 * effect, the rows that it lists are all that is left; whatever comes in later is not the run's. They
 * are few, since the table was swept before, and each is filled in as it is by then, however often
 * it has been changed meanwhile: nothing conflicts with ordinary writes, and no list can grow. When
 * none of them needs work any more, none is left as of that moment. Rows that somebody holds are
 * waited for without a lock: the lane lists anew what there is by then.
 *
 * What was filled in before is right as of the moment at which the check began, which came after the
 * sweep and has looked at all of it since. (The rows of the list are as new as this transaction.)
 *
 * If too much is left the lanes sweep once more; since the bound grows, the run ends however fast
 * rows come in (up to a million during a sweep: their ids have to be in memory).
 */
async function settle(sql: Sql, lane: Lane): Promise<Outcome> {
  const { transform, runId } = lane;
  const { earlier } = await one<{ earlier: number }>(
    sql,
    `SELECT count(*)::int AS "earlier" FROM "BackfillLane" WHERE "runId" = $1 AND "phase" = 'settle' AND "isDone"`,
    [runId],
  );
  const bound = SETTLE_ROWS * 4 ** Math.min(earlier, SETTLE_GROWTH);
  const { rows } = await sql.query<{ id: string }>(listRemainingSql(transform), [runId, bound + 1]);
  const ids = rows.map(({ id }) => id);
  const outcome: Outcome = { cursor: lane.high, passed: 0, changed: 0, isDone: true };
  if (ids.length > bound) return { ...outcome, again: true };
  const fillAll = async (which: readonly string[]) => {
    outcome.changed += await fillIds(sql, transform, runId, which);
  };
  await fillAll(ids);
  // Who was locked a moment ago may be free by now; who is free and stays as it is never will change.
  const free = await needing(sql, lane, ids, 'FOR NO KEY UPDATE OF t SKIP LOCKED');
  await fillAll(free);
  const left = new Set(await needing(sql, lane, ids));
  const remaining = free.filter((id) => left.has(id)).length;
  if (left.size > remaining) {
    return { ...outcome, cursor: lane.cursor, isDone: false, waitMs: LOCKED_MS };
  }
  const { rowCount } = await sql.query(
    `UPDATE "BackfillRun" r
     SET "remaining" = $2, "differing" = 0, "finishedAt" = clock_timestamp() AT TIME ZONE 'utc',
       "status" = CASE WHEN $2 = 0 AND NOT EXISTS (SELECT FROM "BackfillQuarantine" q WHERE q."runId" = r."id")
         THEN 'completed' ELSE 'completed_with_errors' END
     WHERE "id" = $1 AND "status" = 'running'`,
    [runId, remaining],
  );
  // It was paused, or ended, meanwhile: the lane stays open for whoever resumes the run.
  if (rowCount === 0) return { ...outcome, cursor: lane.cursor, isDone: false };
  return outcome;
}

/** Which of the rows still need work. */
async function needing(
  sql: Sql,
  { transform, runId }: Lane,
  ids: readonly string[],
  lock = '',
): Promise<string[]> {
  const { rows } = await sql.query<{ id: string }>(
    `SELECT t."id" FROM "${transform.table}" t
     WHERE t."id" = ANY ($1::text[]) AND ${remains(transform, '$2')}
     ORDER BY t."id" ${lock}`,
    [ids, runId],
  );
  return rows.map(({ id }) => id);
}
