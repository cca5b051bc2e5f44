import type pg from 'pg';

import { BusyError } from '../errors.ts';
import { inTransaction, one, type Sql } from './database.ts';
import { openLogLanes, openTableLanes } from './lanes.ts';
import { MOVED_AT } from './status.ts';
import { interrupt, persist, steer } from './steer.ts';
import type { RunOptions } from './step.ts';
import { DEFAULT_LIMITS } from './throttle.ts';
import type { Transform } from './transform.ts';
import { CHUNK_ROWS } from './tuner.ts';

// What steers runs. PostgreSQL is all that it writes to; workers look there at every chunk, and
// once a second for lanes that are due, so each command takes effect within about a second.
// Each may be given any number of times: it says whether there was anything to do.

export const DEFAULT_OPTIONS: RunOptions = {
  targetMs: 500,
  lanes: 2,
  maxChunkRows: CHUNK_ROWS.max,
  restMs: 0,
  limits: DEFAULT_LIMITS,
};

/** Starts a run on the table, unless one is under way. */
export function start(
  pool: pg.Pool,
  transform: Transform,
  options: Partial<RunOptions> = {},
): Promise<boolean> {
  const all = { ...DEFAULT_OPTIONS, ...options };
  return steer(pool, transform, async (sql) => {
    const { total } = await one<{ total: number }>(sql, countSql(transform));
    const { rows } = await sql.query<{ id: string }>(
      `INSERT INTO "BackfillRun" ("id", "tableName", "totalRows", "options", "startedAt")
       VALUES (gen_random_uuid(), $1, $2, $3, now() AT TIME ZONE 'utc')
       ON CONFLICT ("tableName") WHERE "status" IN ('running', 'paused') DO NOTHING
       RETURNING "id"`,
      [transform.name, total, all],
    );
    const run = rows[0];
    if (run) await openTableLanes(sql, run.id, 'fill', transform, total, all);
    return run !== undefined;
  });
}

/** Blocks that are looked at to say how many rows a table has. */
const COUNT_BLOCKS = 500;

/**
 * How many rows the table has: exactly where it is small, else about, by what some of its blocks
 * hold. To count a large one takes minutes, and nobody sees the run until it is committed.
 */
function countSql({ table }: Transform): string {
  const blocks = `(pg_relation_size('"${table}"') / current_setting('block_size')::int)`;
  return `
SELECT least(2147483647, CASE WHEN ${blocks} <= ${COUNT_BLOCKS} THEN count(*)
  ELSE count(*) * ${blocks}::float8 / greatest(1, count(DISTINCT (t."ctid"::text::point)[0])) END)::int AS "total"
FROM "${table}" t TABLESAMPLE SYSTEM (least(100, 100.0 * ${COUNT_BLOCKS} / greatest(1, ${blocks})))`;
}

/** Holds a run after the chunks that are under way, but for a settling, which begins anew later. */
export async function pause(pool: pg.Pool, { name }: Transform): Promise<boolean> {
  const { rowCount } = await pool.query(
    `UPDATE "BackfillRun" SET "status" = 'paused' WHERE "tableName" = $1 AND "status" = 'running'`,
    [name],
  );
  await interrupt(pool, name, ['settle']);
  return rowCount === 1;
}

export function resume(pool: pg.Pool, transform: Transform): Promise<boolean> {
  return steer(pool, transform, async (sql) => {
    const { rows } = await sql.query<{ id: string }>(
      // The time that it was paused for does not count as time that it took.
      `UPDATE "BackfillRun" r
       SET "status" = 'running', "startedAt" = r."startedAt" + (now() AT TIME ZONE 'utc' - ${MOVED_AT})
       WHERE "tableName" = $1 AND "status" = 'paused' RETURNING "id"`,
      [transform.name],
    );
    if (rows[0]) await goOn(sql, transform, rows[0].id);
    return rows.length === 1;
  });
}

/** Ends a run where it is. What it has done stays, until a rollback or another run. */
export async function cancel(pool: pg.Pool, { name }: Transform): Promise<boolean> {
  const { rowCount } = await pool.query(
    `UPDATE "BackfillRun" SET "status" = 'cancelled', "finishedAt" = now() AT TIME ZONE 'utc'
     WHERE "tableName" = $1 AND "status" IN ('running', 'paused')`,
    [name],
  );
  await interrupt(pool, name, ['settle']);
  return rowCount === 1;
}

/** Has the last run try again what failed: rows in quarantine, or the whole of a failed run. */
export function retry(pool: pg.Pool, transform: Transform): Promise<boolean> {
  return steer(pool, transform, async (sql) => {
    const run = await latest(sql, transform);
    // The time that the run was over for does not count as time that it took.
    const { rowCount: reopened } = await sql.query(
      `UPDATE "BackfillRun" SET "status" = 'running', "reason" = NULL, "finishedAt" = NULL,
         "startedAt" = "startedAt" + (now() AT TIME ZONE 'utc' - "finishedAt")
       WHERE "id" = $1 AND "status" IN ('completed_with_errors', 'failed')`,
      [run?.id],
    );
    if (!run || reopened === 0) return false;
    await sql.query(`DELETE FROM "BackfillQuarantine" WHERE "runId" = $1`, [run.id]);
    await goOn(sql, transform, run.id);
    return true;
  });
}

/**
 * Takes back all that backfills have written to the table, by lanes as ever. It is a run of its
 * own, and ends the one that is under way.
 */
export function rollback(pool: pg.Pool, transform: Transform): Promise<boolean> {
  return persist(transform, async () => {
    // Committed before lanes are closed: from here on no chunk begins, lanes that one under way
    // opens are nobody's, and what settles does not end it, since it finds the run changed.
    await pool.query(
      `UPDATE "BackfillRun" SET "status" = 'cancelled', "finishedAt" = now() AT TIME ZONE 'utc'
       WHERE "tableName" = $1 AND "status" IN ('running', 'paused') AND "phase" <> 'undo'`,
      [transform.name],
    );
    await interrupt(pool, transform.name, ['fill', 'check', 'sweep', 'settle']);
    return inTransaction(pool, (sql) => undo(sql, transform));
  });
}

async function undo(sql: Sql, transform: Transform): Promise<boolean> {
  const run = await latest(sql, transform);
  const isOpen = run?.status === 'running' || run?.status === 'paused';
  if (!run || run.status === 'rolled_back' || (run.phase === 'undo' && isOpen)) return false;
  // First of all, since it keeps others from beginning a run.
  const { rows } = await sql.query<{ id: string }>(
    `INSERT INTO "BackfillRun" ("id", "tableName", "phase", "totalRows", "options", "startedAt")
     VALUES (gen_random_uuid(), $1, 'undo', 0, $2, clock_timestamp() AT TIME ZONE 'utc')
     ON CONFLICT ("tableName") WHERE "status" IN ('running', 'paused') DO NOTHING
     RETURNING "id"`,
    [transform.name, run.options],
  );
  const undoRun = rows[0];
  if (!undoRun) throw new BusyError(`Another run of ${transform.name} was begun meanwhile`);
  // Of all its runs: a chunk of one that was cancelled long ago may be under way. This waits for
  // each, so that the log is whole; one that comes later (its worker was frozen, or looked before
  // the run ended) finds its lane done. It holds a lane and locks its run's row, which we do not.
  await sql.query(
    `UPDATE "BackfillLane" l SET "isDone" = true FROM "BackfillRun" r
     WHERE r."id" = l."runId" AND r."tableName" = $1 AND r."id" <> $2 AND NOT l."isDone"`,
    [transform.name, undoRun.id],
  );
  await openLogLanes(sql, undoRun.id, 'undo', transform, run.options.lanes);
  await sql.query(`UPDATE "BackfillRun" r SET "totalRows" = (${LOGGED}) WHERE "id" = $1`, [
    undoRun.id,
  ]);
  return true;
}

/** Rows in the log of the table, without reading it: what was ever written, less what was taken back. */
const LOGGED = `
  SELECT greatest(0, coalesce(sum(CASE WHEN l."phase" = 'undo' THEN -l."rowsPassed" ELSE l."rowsChanged" END), 0))::int
  FROM "BackfillLane" l JOIN "BackfillRun" of_table ON of_table."id" = l."runId"
  WHERE of_table."tableName" = r."tableName"`;

interface RunRow {
  id: string;
  status: string;
  phase: string;
  totalRows: number;
  options: RunOptions;
}

async function latest(sql: Sql, { name }: Transform): Promise<RunRow | undefined> {
  const { rows } = await sql.query<RunRow>(
    `SELECT "id", "status", "phase", "totalRows", "options" FROM "BackfillRun" WHERE "tableName" = $1
     ORDER BY "startedAt" DESC, "id" DESC LIMIT 1`,
    [name],
  );
  return rows[0];
}

/** Has the lanes of a run taken up. One that has none is swept once more. */
async function goOn(sql: Sql, transform: Transform, runId: string): Promise<void> {
  if (await makeDue(sql, runId)) return;
  const { totalRows, options } = await one<Pick<RunRow, 'totalRows' | 'options'>>(
    sql,
    `UPDATE "BackfillRun" SET "phase" = 'sweep' WHERE "id" = $1 RETURNING "totalRows", "options"`,
    [runId],
  );
  await openTableLanes(sql, runId, 'sweep', transform, totalRows, options);
}

/**
 * Has the lanes of a run taken up at once, and says whether it has any. One that is locked is at
 * work, which a settling may be for long: its worker goes on with it, or tries it again.
 */
async function makeDue(sql: Sql, runId: string): Promise<boolean> {
  // The time that it stood still says nothing of its pace.
  await sql.query(
    `UPDATE "BackfillLane" SET "dueAt" = now() AT TIME ZONE 'utc', "movedAt" = clock_timestamp() AT TIME ZONE 'utc'
     WHERE "id" IN (SELECT "id" FROM "BackfillLane" WHERE "runId" = $1 AND NOT "isDone" FOR NO KEY UPDATE SKIP LOCKED)`,
    [runId],
  );
  const { open } = await one<{ open: boolean }>(
    sql,
    `SELECT EXISTS (SELECT FROM "BackfillLane" WHERE "runId" = $1 AND NOT "isDone") AS "open"`,
    [runId],
  );
  return open;
}
