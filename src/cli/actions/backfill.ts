import { setTimeout as sleep } from 'node:timers/promises';

import type pg from 'pg';

import { openPool } from '../../backfill/database.ts';
import { cancel, pause, resume, retry, rollback, start } from '../../backfill/runs.ts';
import { readStatus, type RunStatus } from '../../backfill/status.ts';
import type { RunOptions } from '../../backfill/step.ts';
import type { Transform } from '../../backfill/transform.ts';
import { TRANSFORMS } from '../../backfill/transforms/index.ts';
import { CHUNK_ROWS } from '../../backfill/tuner.ts';
import { dryRun, verify } from '../../backfill/verify.ts';
import { startBackfillWorker } from '../../backfill/worker.ts';
import { UsageError } from '../../errors.ts';
import type { BackfillOptions, StartOptions } from '../backfill.ts';
import { inEnvironment, type Environment } from '../environment.ts';
import { createProgress, duration } from '../progress.ts';
import { ensureSchema } from '../schema.ts';
import { table } from '../table.ts';

const DAY_MS = 24 * 60 * 60 * 1000;

/** Milliseconds between two looks at the runs that are being watched. */
const LOOK_EVERY_MS = 250;

export async function startRuns(names: readonly string[], options: StartOptions): Promise<void> {
  const tables = chosen(names);
  const runOptions: RunOptions = {
    targetMs: whole('--target-ms', options.targetMs, 10, 60_000),
    lanes: whole('--lanes', options.lanes, 1, 64),
    maxChunkRows: whole('--max-chunk-rows', options.maxChunkRows, CHUNK_ROWS.min, CHUNK_ROWS.max),
    restMs: whole('--rest-ms', options.restMs, 0, 60_000),
    limits: {
      lagMs: whole('--max-lag-ms', options.maxLagMs, 0, DAY_MS),
      ...(options.lagQuery !== undefined && { lagSql: options.lagQuery }),
      waitMs: whole('--max-wait-ms', options.maxWaitMs, 0, DAY_MS),
      vacuumMs: whole('--max-vacuum-ms', options.maxVacuumMs, 0, DAY_MS),
      writeMs: whole('--max-write-ms', options.maxWriteMs, 0, DAY_MS),
      queuedJobs: whole('--max-queued-jobs', options.maxQueuedJobs, 0, 1_000_000_000),
    },
  };
  const needs = options.dryRun || options.detach ? 'database' : 'all';
  await inEnvironment({ ...options, needs }, async (environment) => {
    const pool = openPoolIn(environment);
    await ensureSchema(environment);
    if (options.dryRun) return showDryRun(environment, pool, tables);
    const begun = await Promise.all(tables.map((each) => start(pool, each, runOptions)));
    tables.forEach((each, index) =>
      environment.say(`${each.name}: ${begun[index] ? 'started' : 'is under way already'}`),
    );
    if (options.detach) return 0;
    return workAndWatch(environment, pool, tables);
  });
}

async function workAndWatch(
  { databaseUrl, queue, log, closer, remainingMs, say, result, stopping }: Environment,
  pool: pg.Pool,
  tables: readonly Transform[],
): Promise<0 | 1> {
  const worker = await startBackfillWorker({ databaseUrl, queue, log });
  closer.add('backfill', () => worker.stop(remainingMs()));
  const names = tables.map(({ name }) => name);
  const show = createProgress();
  let seen: RunStatus[] = [];
  while (!stopping.aborted) {
    seen = await readStatus(pool, names).catch(() => seen); // PostgreSQL may be away for a while
    show(seen);
    if (!seen.some(({ status }) => status === 'running' || status === 'paused')) break;
    await sleep(LOOK_EVERY_MS, undefined, { signal: stopping }).catch(() => {});
  }
  if (stopping.aborted) {
    say(
      'Stopped working here. The backfill goes on where an `annals worker` runs, or when you run this again.',
    );
    stopping.throwIfAborted();
  }
  result(seen, summary(seen));
  return seen.every(({ status }) => status === 'completed') ? 0 : 1;
}

export async function showStatus(
  names: readonly string[],
  options: BackfillOptions,
): Promise<void> {
  const tables = chosen(names).map(({ name }) => name);
  await inEnvironment({ ...options, needs: 'database' }, async (environment) => {
    await ensureSchema(environment);
    const found = await readStatus(openPoolIn(environment), tables);
    environment.result(found, found.length > 0 ? summary(found) : 'No backfill has been started.');
    return 0;
  });
}

export async function verifyTables(
  names: readonly string[],
  options: BackfillOptions,
): Promise<void> {
  const tables = chosen(names);
  await inEnvironment({ ...options, needs: 'database' }, async (environment) => {
    await ensureSchema(environment);
    const pool = openPoolIn(environment);
    const found = await Promise.all(tables.map((each) => verify(pool, each)));
    environment.result(
      found,
      table(
        ['table', 'remaining', 'differing', 'in quarantine'],
        found.map((each) => [each.table, each.remaining, each.differing, each.quarantined]),
      ),
    );
    return found.every((each) => each.remaining + each.differing + each.quarantined === 0) ? 0 : 1;
  });
}

const STEERING = {
  pause: { steer: pause, done: 'paused' },
  resume: { steer: resume, done: 'resumed' },
  cancel: { steer: cancel, done: 'cancelled' },
  retry: { steer: retry, done: 'trying again' },
  rollback: { steer: rollback, done: 'rolling back' },
};

export async function steerRuns(
  command: keyof typeof STEERING,
  names: readonly string[],
  options: BackfillOptions,
): Promise<void> {
  const tables = chosen(names);
  await inEnvironment({ ...options, needs: 'database' }, async (environment) => {
    await ensureSchema(environment);
    const pool = openPoolIn(environment);
    const done: Record<string, boolean> = {};
    for (const each of tables) done[each.name] = await STEERING[command].steer(pool, each);
    environment.result(
      done,
      tables
        .map(
          ({ name }) => `${name}: ${done[name] ? STEERING[command].done : `nothing to ${command}`}`,
        )
        .join('\n'),
    );
    const needsWorker =
      command !== 'pause' && command !== 'cancel' && Object.values(done).includes(true);
    if (needsWorker)
      environment.say('Workers do it: `annals worker`, or `annals backfill start` to watch.');
    return 0;
  });
}

async function showDryRun(
  { result }: Environment,
  pool: pg.Pool,
  tables: readonly Transform[],
): Promise<0> {
  const found = [];
  for (const each of tables) found.push(await dryRun(pool, each));
  const lines = found.flatMap((each) => [
    `${each.table}: ${each.needing} of ${each.sampled} sampled rows need work; ${each.rows.toLocaleString('en')} rows take about ${duration(each.estimateMs)} in one lane`,
    ...each.examples.flatMap(({ before, after }) => [
      `  - ${JSON.stringify(before)}`,
      `  + ${JSON.stringify(after)}`,
    ]),
  ]);
  result(found, [...lines, 'Nothing was changed.'].join('\n'));
  return 0;
}

const summary = (found: readonly RunStatus[]): string =>
  [
    table(
      [
        'table',
        'status',
        'rows',
        'changed',
        'in quarantine',
        'remaining',
        'differing',
        'chunks',
        'took',
        'left',
      ],
      found.map((run) => [
        run.table,
        run.status === 'running' ? `${run.phase} ${(100 * run.fraction).toFixed(1)}%` : run.status,
        run.passed,
        run.changed,
        run.quarantined,
        run.remaining ?? '?',
        run.differing ?? '?',
        run.chunks,
        duration(run.elapsedMs),
        run.etaMs === null ? '' : duration(run.etaMs),
      ]),
    ),
    ...found.flatMap(({ table, reason }) => (reason === null ? [] : [`${table}: ${reason}`])),
  ].join('\n');

function openPoolIn({ databaseUrl, closer }: Environment): pg.Pool {
  const pool = openPool(databaseUrl, 4);
  closer.add('pool', () => pool.end());
  return pool;
}

/** @throws {UsageError} for a name that is no table's */
function chosen(names: readonly string[]): readonly Transform[] {
  if (names.length === 0) return TRANSFORMS;
  return names.map((name) => {
    const found = TRANSFORMS.find(
      (transform) => transform.name === name || transform.table === name,
    );
    if (found) return found;
    throw new UsageError(
      `got the table ${name}; takes ${TRANSFORMS.map((each) => each.name).join(', ')}`,
    );
  });
}

function whole(name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new UsageError(`${name}: got ${text}; takes a whole number from ${min} to ${max}`);
}
