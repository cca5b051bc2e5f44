import { setTimeout as sleep } from 'node:timers/promises';

import type pg from 'pg';

import type { PrismaClient } from '../database/client.ts';
import { serverMessage, sqlState } from '../database/faults.ts';
import type { Logger } from '../logger.ts';
import { inTransaction, one, type Sql, type TransactionOptions } from './database.ts';
import { openLogLanes, openSettleLane, openTableLanes, shareLane, type Phase } from './lanes.ts';
import { PHASES, type Lane, type Outcome } from './phases.ts';
import type { Limits, Throttle } from './throttle.ts';
import { isRefusal } from './parts.ts';
import { transformOf } from './transforms/index.ts';
import { CHUNK_ROWS, nextChunkRows } from './tuner.ts';

/** What a job on the queue asks for: one chunk of a lane. Whoever has not the lane's present token comes too late. */
export interface Task {
  lane: number;
  token: number;
  phase: Phase;
  table: string;
}

export interface Workbench {
  pool: pg.Pool;
  prisma: PrismaClient;
  log: Logger;
  /** Left out where nothing is to be spared. */
  throttle?: Throttle;
  /** Milliseconds after which a lane that nobody moves on is given to another worker. */
  leaseMs: number;
}

/** What comes of a chunk: the task that follows, and milliseconds until it is due. */
export interface Step {
  next?: Task & { delayMs: number };
  /** Whether other lanes may have become due. */
  lanesChanged?: boolean;
  rows?: number;
  tookMs?: number;
}

/** Options of a run, as they stand in its row. */
export interface RunOptions {
  /** Milliseconds that a chunk should take. */
  targetMs: number;
  /** Ranges of blocks that are worked on at once. */
  lanes: number;
  /** Rows in a chunk at most. */
  maxChunkRows: number;
  /** Milliseconds of rest after each chunk. */
  restMs: number;
  limits: Limits;
}

/** To settle is to look at the whole table at one moment, which may take an hour. */
const SETTLING: TransactionOptions = { statementTimeoutMs: 3_600_000 };

/**
 * Works on one chunk of a lane. Its rows, its cursor, its counters and its new token are one
 * transaction, which holds the lane's lock to the end: a worker that was presumed dead either
 * still has the lock, and nobody has taken its place, or finds that its token is gone.
 */
export async function workLane(bench: Workbench, task: Task): Promise<Step> {
  try {
    const held = await holdBack(bench, task);
    if (held) return held;
    if (task.phase === 'settle') await finishUp(bench, task);
    return await inTransaction(
      bench.pool,
      (sql) => work(sql, bench, task),
      task.phase === 'settle' ? SETTLING : {},
    );
  } catch (error) {
    return recover(bench, task, error);
  }
}

/**
 * What follows a table's rows, such as the recount of sessions, which may take longer than the lease:
 * it is renewed meanwhile. It is not repeated by whoever comes after a commit, and safe to repeat.
 */
async function finishUp({ pool, prisma, leaseMs }: Workbench, task: Task): Promise<void> {
  const { after } = transformOf(task.table);
  if (!after) return;
  const renew = () =>
    pool.query(
      `UPDATE "BackfillLane" SET "dueAt" = now() AT TIME ZONE 'utc' + $3 * interval '1 ms' WHERE "id" = $1 AND "token" = $2`,
      [task.lane, task.token, leaseMs],
    );
  const timer = setInterval(() => void renew().catch(() => {}), leaseMs / 3);
  try {
    await after(prisma);
  } finally {
    clearInterval(timer);
  }
}

/** What a chunk counts for in the figures of the last chunks, compared with the one after it. */
const FADING = 0.9;

async function work(sql: Sql, bench: Workbench, task: Task): Promise<Step> {
  const claimed = await claim(sql, task);
  if (!claimed) return {};
  const { lane, options } = claimed;
  const startedAt = performance.now();
  const outcome = await PHASES[task.phase](sql, lane);
  const tookMs = performance.now() - startedAt;
  const restMs = Math.max(options.restMs, outcome.waitMs ?? 0);
  const chunkRows = outcome.isTelling
    ? Math.min(
        options.maxChunkRows,
        nextChunkRows(lane.chunkRows, (tookMs * lane.chunkRows) / outcome.passed, options.targetMs),
      )
    : lane.chunkRows;
  await sql.query(
    `UPDATE "BackfillLane"
     SET "cursor" = $2, "isDone" = $3, "chunkRows" = $4, "chunks" = "chunks" + 1,
       "rowsPassed" = "rowsPassed" + $5, "rowsChanged" = "rowsChanged" + $6, "busyMs" = "busyMs" + $7,
       "recentRows" = $9::float8 * (${FADING} * "recentRows" + $5), "recentBusyMs" = $9::float8 * (${FADING} * "recentBusyMs" + $7),
       "recentWallMs" = $9::float8 * (${FADING} * "recentWallMs" + 1000 * extract(epoch FROM clock_timestamp() AT TIME ZONE 'utc' - "movedAt")),
       "movedAt" = clock_timestamp() AT TIME ZONE 'utc',
       "token" = "token" + 1, "dueAt" = clock_timestamp() AT TIME ZONE 'utc' + $8 * interval '1 ms'
     WHERE "id" = $1`,
    [
      lane.id,
      outcome.cursor,
      outcome.isDone,
      chunkRows,
      outcome.passed,
      outcome.changed,
      Math.round(tookMs),
      bench.leaseMs + restMs,
      // Small chunks cost more a row, and the first ones are small: they say little of larger ones.
      Math.min(1, lane.chunkRows / chunkRows),
    ],
  );
  let lanesChanged = outcome.isDone;
  if (outcome.isDone) await enterNextPhase(sql, task, lane, options, outcome);
  else if (task.phase === 'fill' || task.phase === 'sweep')
    lanesChanged = await shareLane(
      sql,
      lane,
      outcome.cursor,
      lane.rowsPassed + outcome.passed,
      options.lanes,
    );
  if (outcome.isDone)
    bench.log.info({ table: task.table, phase: task.phase, lane: lane.id }, 'lane done');
  bench.log.debug({ ...task, rows: outcome.passed, ms: Math.round(tookMs) }, 'chunk committed');
  return {
    rows: outcome.passed,
    tookMs: Math.round(tookMs),
    lanesChanged,
    ...(!outcome.isDone && {
      next: { ...task, token: task.token + 1, delayMs: restMs },
    }),
  };
}

/** Milliseconds between two looks at what holds a run. */
const HOLD_MS = 1000;

/** What comes instead of the chunk while the run is held; its row says why. */
async function holdBack(
  { pool, throttle, leaseMs }: Workbench,
  task: Task,
): Promise<Step | undefined> {
  if (!throttle) return undefined;
  const { rows } = await pool.query<{ id: string; reason: string | null; options: RunOptions }>(
    `SELECT r."id", r."reason", r."options" FROM "BackfillRun" r JOIN "BackfillLane" l ON l."runId" = r."id"
     WHERE l."id" = $1 AND l."token" = $2 AND r."status" = 'running'`,
    [task.lane, task.token],
  );
  const run = rows[0];
  if (!run) return {};
  const reason = (await throttle.holds(transformOf(task.table).table, run.options.limits)) ?? null;
  if (reason !== run.reason) {
    await pool.query(
      `UPDATE "BackfillRun" SET "reason" = $2 WHERE "id" = $1 AND "status" = 'running'`,
      [run.id, reason],
    );
  }
  if (reason === null) return undefined;
  await pool.query(
    `UPDATE "BackfillLane" SET "dueAt" = now() AT TIME ZONE 'utc' + $3 * interval '1 ms' WHERE "id" = $1 AND "token" = $2`,
    [task.lane, task.token, leaseMs + HOLD_MS],
  );
  return { next: { ...task, delayMs: HOLD_MS } };
}

/** Locks the lane, if the task has its present token and its run is not held. */
async function claim(
  sql: Sql,
  { lane: id, token }: Task,
): Promise<{ lane: Lane; options: RunOptions } | undefined> {
  const { rows } = await sql.query<
    Omit<Lane, 'transform'> & { tableName: string; options: RunOptions }
  >(
    `SELECT l."id", l."runId", l."phase", l."low"::float8, l."cursor"::float8, l."high"::float8, l."chunkRows", l."rowsPassed",
       r."tableName", r."options"
     FROM "BackfillLane" l JOIN "BackfillRun" r ON r."id" = l."runId"
     WHERE l."id" = $1 AND l."token" = $2 AND NOT l."isDone" AND r."status" = 'running'
     FOR NO KEY UPDATE OF l SKIP LOCKED`,
    [id, token],
  );
  const row = rows[0];
  return row && { lane: { ...row, transform: transformOf(row.tableName) }, options: row.options };
}

/**
 * The phase that follows one. The check comes after all that may write much, so that what it has seen
 * is right to the end. A settling that finds too much goes back to the sweep.
 */
const AFTER = { fill: 'sweep', sweep: 'check', check: 'settle', settle: 'sweep' } as const;

/**
 * When the last lane of a phase is done, opens those of the next one. Lanes that end at once take
 * turns at the run's row: the later one sees, in a statement after that wait, that it is the last.
 */
async function enterNextPhase(
  sql: Sql,
  { phase }: Task,
  { runId, transform }: Lane,
  options: RunOptions,
  { again }: Outcome,
): Promise<void> {
  const run = await one<{ totalRows: number; status: string } | Record<string, never>>(
    sql,
    `SELECT "totalRows", "status" FROM "BackfillRun" WHERE "id" = $1 FOR NO KEY UPDATE`,
    [runId],
  );
  const { open } = await one<{ open: boolean }>(
    sql,
    `SELECT EXISTS (SELECT FROM "BackfillLane" WHERE "runId" = $1 AND NOT "isDone") AS "open"`,
    [runId],
  );
  if (open) return;
  if (phase === 'undo') {
    await sql.query(
      `UPDATE "BackfillRun" SET "status" = 'rolled_back', "finishedAt" = now() AT TIME ZONE 'utc' WHERE "id" = $1`,
      [runId],
    );
    return;
  }
  if (phase === 'settle' && !again) return;
  const next = AFTER[phase];
  if (next === 'sweep') {
    await openTableLanes(sql, runId, next, transform, run['totalRows'] ?? 0, options);
  } else if (next === 'check') await openLogLanes(sql, runId, next, transform, options.lanes);
  else await openSettleLane(sql, runId);
  await sql.query(`UPDATE "BackfillRun" SET "phase" = $2 WHERE "id" = $1`, [runId, next]);
}

/** The statement itself is wrong here: no retry helps until somebody mends the database. */
const BROKEN = /^(0A|3F|42)/;
const STATEMENT_TIMEOUT = '57014';

/** Conflicts with other transactions, which are a matter of moments. */
const IN_THE_WAY: ReadonlySet<string> = new Set(['40001', '40P01', '55P03', '23505']);

/** Milliseconds until a chunk that was in somebody's way is tried again, one that reads the whole table, and one whose server is away. */
const RETRY_MS = { conflict: 250, settle: 1000, away: 1000 };

/** Nothing of the chunk is left. It is tried again, smaller if it took too long. */
async function recover(bench: Workbench, task: Task, error: unknown): Promise<Step> {
  const state = sqlState(error);
  const reason = serverMessage(error);
  bench.log.warn({ ...task, reason, sqlState: state }, 'a chunk was rolled back');
  const retry = (delayMs: number): Step => ({ next: { ...task, delayMs } });
  if (state === undefined) {
    await sleep(RETRY_MS.away); // not to take the next job at once, which would fare no better
    return retry(RETRY_MS.away);
  }
  const note = async (text: string, params: unknown[]) => {
    await bench.pool.query(text, params).catch(() => {});
  };
  // Values are taken back all or none: what refuses one, such as a NOT NULL of the column, is to be
  // mended by somebody.
  if (BROKEN.test(state) || (task.phase === 'undo' && isRefusal(error))) {
    await note(
      `UPDATE "BackfillRun" SET "status" = 'failed', "reason" = $2, "finishedAt" = now() AT TIME ZONE 'utc'
       WHERE "id" = (SELECT "runId" FROM "BackfillLane" WHERE "id" = $1) AND "status" = 'running'`,
      [task.lane, reason],
    );
    return {};
  }
  if (state === STATEMENT_TIMEOUT) {
    await note(
      `UPDATE "BackfillLane" SET "chunkRows" = greatest(${CHUNK_ROWS.min}, "chunkRows" / 10) WHERE "id" = $1 AND "token" = $2`,
      [task.lane, task.token],
    );
  }
  if (!IN_THE_WAY.has(state)) {
    await note(
      `UPDATE "BackfillRun" SET "reason" = $2
       WHERE "id" = (SELECT "runId" FROM "BackfillLane" WHERE "id" = $1) AND "status" = 'running'`,
      [task.lane, `a chunk is tried again and again: ${reason}`],
    );
  }
  return retry(task.phase === 'settle' ? RETRY_MS.settle : RETRY_MS.conflict);
}
