import { setTimeout as sleep } from 'node:timers/promises';

import type pg from 'pg';

import { sqlState } from '../database/faults.ts';
import { NotFoundError } from '../errors.ts';
import { inTransaction, one, type Sql } from './database.ts';
import { openLogLanes, openTableLanes } from './lanes.ts';
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

/** Milliseconds in which a large table can be counted. */
const COUNT_TIMEOUT_MS = 3_600_000;

/** Starts a run on the table, unless one is under way. */
export function start(
  pool: pg.Pool,
  transform: Transform,
  options: Partial<RunOptions> = {},
): Promise<boolean> {
  const { name, table } = transform;
  const all = { ...DEFAULT_OPTIONS, ...options };
  const begin = async (sql: Sql) => {
    const { rows } = await sql.query<{ id: string }>(
      `INSERT INTO "BackfillRun" ("id", "tableName", "totalRows", "options", "startedAt")
       VALUES (gen_random_uuid(), $1, 0, $2, now() AT TIME ZONE 'utc')
       ON CONFLICT ("tableName") WHERE "status" IN ('running', 'paused') DO NOTHING
       RETURNING "id"`,
      [name, all],
    );
    const run = rows[0];
    if (!run) return false;
    const { total } = await one<{ total: number }>(
      sql,
      `SELECT least(count(*), 2147483647)::int AS "total" FROM "${table}"`,
    );
    await sql.query(`UPDATE "BackfillRun" SET "totalRows" = $2 WHERE "id" = $1`, [run.id, total]);
    await openTableLanes(sql, run.id, 'fill', transform, total, all);
    return true;
  };
  return steer(pool, begin);
}

/** Holds a run after the chunks that are under way. */
export async function pause(pool: pg.Pool, { name }: Transform): Promise<boolean> {
  const { rowCount } = await pool.query(
    `UPDATE "BackfillRun" SET "status" = 'paused' WHERE "tableName" = $1 AND "status" = 'running'`,
    [name],
  );
  return rowCount === 1;
}

export function resume(pool: pg.Pool, { name }: Transform): Promise<boolean> {
  return steer(pool, async (sql) => {
    const { rows } = await sql.query<{ id: string }>(
      `UPDATE "BackfillRun" SET "status" = 'running' WHERE "tableName" = $1 AND "status" = 'paused' RETURNING "id"`,
      [name],
    );
    if (rows[0]) await makeDue(sql, rows[0].id);
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
  return rowCount === 1;
}

/** Has the last run try again what failed: rows in quarantine, or the whole of a failed run. */
export function retry(pool: pg.Pool, transform: Transform): Promise<boolean> {
  return steer(pool, async (sql) => {
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
    const { rowCount } = await makeDue(sql, run.id);
    if (rowCount === 0) {
      await openTableLanes(sql, run.id, 'sweep', transform, run.totalRows, run.options);
      await sql.query(`UPDATE "BackfillRun" SET "phase" = 'sweep' WHERE "id" = $1`, [run.id]);
    }
    return true;
  });
}

/**
 * Takes back all that backfills have written to the table, by lanes as ever. It is a run of its
 * own, and ends the one that is under way.
 */
export function rollback(pool: pg.Pool, transform: Transform): Promise<boolean> {
  return steer(pool, async (sql) => {
    const run = await latest(sql, transform);
    const isOpen = run?.status === 'running' || run?.status === 'paused';
    if (!run || run.status === 'rolled_back' || (run.phase === 'undo' && isOpen)) return false;
    // Waits for the chunks that are under way, so that their log is seen; later ones find their
    // lanes done. Such a chunk may have opened lanes, which the next statement sees.
    const closeLanes = () =>
      sql.query(`UPDATE "BackfillLane" SET "isDone" = true WHERE "runId" = $1 AND NOT "isDone"`, [
        run.id,
      ]);
    while ((await closeLanes()).rowCount !== 0);
    // After the lanes, which is the order in which a chunk locks them.
    await sql.query(
      `UPDATE "BackfillRun" SET "status" = 'cancelled', "finishedAt" = now() AT TIME ZONE 'utc'
       WHERE "id" = $1 AND "status" IN ('running', 'paused')`,
      [run.id],
    );
    const { rows } = await sql.query<{ id: string }>(
      `INSERT INTO "BackfillRun" ("id", "tableName", "phase", "totalRows", "options", "startedAt")
       SELECT gen_random_uuid(), r."tableName", 'undo', (${LOGGED}), r."options", clock_timestamp() AT TIME ZONE 'utc'
       FROM "BackfillRun" r WHERE r."id" = $1
       ON CONFLICT ("tableName") WHERE "status" IN ('running', 'paused') DO NOTHING
       RETURNING "id"`,
      [run.id],
    );
    const undo = rows[0];
    if (!undo) return false; // another rollback, or a start, came first
    await openLogLanes(sql, undo.id, 'undo', transform, run.options.lanes);
    return true;
  });
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

const makeDue = (sql: Sql, runId: string) =>
  sql.query(
    // The time that it stood still says nothing of its pace.
    `UPDATE "BackfillLane" SET "dueAt" = now() AT TIME ZONE 'utc', "movedAt" = clock_timestamp() AT TIME ZONE 'utc'
     WHERE "runId" = $1 AND NOT "isDone"`,
    [runId],
  );

/** A lock that was not had in time, and a deadlock with a chunk. */
const IN_THE_WAY: ReadonlySet<string | undefined> = new Set(['55P03', '40P01']);
const UNDEFINED_TABLE = '42P01';

/** Runs a command, again while chunks that are being committed hold what it has to lock. */
async function steer<T>(pool: pg.Pool, work: (sql: Sql) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await inTransaction(pool, work, { statementTimeoutMs: COUNT_TIMEOUT_MS });
    } catch (error) {
      if (sqlState(error) === UNDEFINED_TABLE) {
        throw new NotFoundError(
          'The database lacks tables of the schema; run: npx annals migrate',
          {
            cause: error,
          },
        );
      }
      if (!IN_THE_WAY.has(sqlState(error)) || attempt === 30) throw error;
      await sleep(50);
    }
  }
}
