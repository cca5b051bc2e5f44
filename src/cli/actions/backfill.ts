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
import { serverMessage } from '../../database/faults.ts';
import { InterruptedError, UsageError } from '../../errors.ts';
import type {
  BackfillOptions,
  Reworking,
  StartOptions,
  Steering,
  SteerOptions,
} from '../backfill.ts';
import { dryRuns, outcome, summary, verification } from '../backfillReport.ts';
import { inEnvironment, type Environment } from '../environment.ts';
import { createLogger } from '../../logger.ts';
import { createProgress, whileWaiting } from '../progress.ts';
import { ensureSchema } from '../schema.ts';

const DAY_MS = 24 * 60 * 60 * 1000;

/** Milliseconds between two looks at the runs that are being watched. */
const LOOK_EVERY_MS = 250;

export async function startRuns(names: readonly string[], options: StartOptions): Promise<void> {
  const tables = chosen(names);
  const runOptions = runOptionsOf(options);
  if (options.dryRun) return showDryRun(tables, options);
  const needs = options.detach ? 'database' : 'all';
  await inEnvironment({ ...options, needs }, async (environment) => {
    const pool = openPoolIn(environment);
    await ensureSchema(environment);
    const begun = await whileWaiting('Counting rows', () =>
      Promise.all(tables.map((each) => start(pool, each, runOptions))),
    );
    const found = await readStatus(pool, namesOf(tables));
    tables.forEach(({ name }, index) => {
      const run = found.find(({ table }) => table === name);
      environment.say(`${name}: ${begun[index] ? 'started' : underWay(run)}`);
    });
    if (!options.detach) return workAndWatch(environment, pool, tables, 'start');
    environment.result(found, 'Workers do it: npx annals worker');
    return 0;
  });
}

function underWay(run: RunStatus | undefined): string {
  if (run?.phase === 'undo') return 'is being rolled back';
  if (run?.status === 'paused') return 'is paused; npx annals backfill resume goes on';
  return 'is under way already';
}

const REWORKING = {
  retry: { rework: retry, done: 'trying again' },
  rollback: { rework: rollback, done: 'rolling back' },
};

/** Has runs worked on again, or backwards, and works on them here until they end. */
export async function reworkRuns(
  command: Reworking,
  names: readonly string[],
  options: SteerOptions,
): Promise<void> {
  const tables = chosen(names);
  const needs = options.detach ? 'database' : 'all';
  await inEnvironment({ ...options, needs }, async (environment) => {
    const { say, result } = environment;
    await ensureSchema(environment);
    const pool = openPoolIn(environment);
    const begun = new Set<string>();
    for (const each of tables) {
      if (await REWORKING[command].rework(pool, each)) begun.add(each.name);
    }
    const found = await readStatus(pool, namesOf(tables));
    const isOpen = ({ table, status, phase }: RunStatus) =>
      begun.has(table) ||
      ((phase === 'undo') === (command === 'rollback') &&
        (status === 'running' || status === 'paused'));
    const open = found.filter(isOpen);
    for (const { name } of tables) {
      const run = open.find(({ table }) => table === name);
      const state = begun.has(name)
        ? REWORKING[command].done
        : run
          ? underWay(run)
          : `nothing to ${command === 'retry' ? 'retry' : 'roll back'}`;
      say(`${name}: ${state}`);
    }
    const watched = tables.filter(({ name }) => open.some(({ table }) => table === name));
    if (watched.length > 0 && !options.detach)
      return workAndWatch(environment, pool, watched, command);
    result(found, watched.length > 0 ? 'Workers do it: npx annals worker' : 'Nothing was changed.');
    return 0;
  });
}

/** Works on runs until none of them is under way; 0 when all came to the end that they are to. */
async function workAndWatch(
  { config, databaseUrl, queue, closer, remainingMs, say, result, stopping }: Environment,
  pool: pg.Pool,
  tables: readonly Transform[],
  command: Reworking | 'start',
): Promise<0 | 1> {
  const progress = createProgress();
  // The bars say what would be said at level info.
  const level = process.stderr.isTTY && config.ANNALS_LOG_LEVEL === 'info' ? 'warn' : undefined;
  const log = createLogger({ ...config, ...(level && { ANNALS_LOG_LEVEL: level }) }, () =>
    progress.clear(),
  );
  const worker = await startBackfillWorker({ databaseUrl, queue, log });
  closer.add('backfill', () => worker.stop(remainingMs()));
  let seen: RunStatus[] = [];
  while (!stopping.aborted) {
    try {
      seen = await readStatus(pool, namesOf(tables));
    } catch (error) {
      log.warn({ reason: serverMessage(error) }, 'PostgreSQL does not answer; waiting for it');
    }
    progress.show(seen);
    if (seen.length > 0 && !seen.some(({ status }) => status === 'running' || status === 'paused'))
      break;
    await sleep(LOOK_EVERY_MS, undefined, { signal: stopping }).catch(() => {});
  }
  if (stopping.aborted) {
    if (!(stopping.reason instanceof InterruptedError)) throw stopping.reason;
    const goOn = `npx annals backfill ${command === 'retry' ? 'start' : command}`;
    say(`Stopped working here; what is done stays. Go on with:\n  ${goOn}`);
    say('(Where an `annals worker` runs, it goes on by itself.)');
    return 1;
  }
  result(seen, outcome(seen));
  const goal = command === 'rollback' ? 'rolled_back' : 'completed';
  return seen.every(({ status }) => status === goal) ? 0 : 1;
}

export async function showStatus(
  names: readonly string[],
  options: BackfillOptions,
): Promise<void> {
  const tables = chosen(names);
  await inEnvironment({ ...options, needs: 'database', onlyLooks: true }, async (environment) => {
    await ensureSchema(environment);
    const found = await readStatus(openPoolIn(environment), namesOf(tables));
    environment.result(found, summary(found));
    return 0;
  });
}

export async function verifyTables(
  names: readonly string[],
  options: BackfillOptions,
): Promise<void> {
  const tables = chosen(names);
  await inEnvironment({ ...options, needs: 'database', onlyLooks: true }, async (environment) => {
    await ensureSchema(environment);
    const pool = openPoolIn(environment);
    const found = await whileWaiting('Comparing', () =>
      Promise.all(tables.map((each) => verify(pool, each))),
    );
    environment.result(found, verification(found));
    return found.every((each) => each.remaining + each.differing + each.quarantined === 0) ? 0 : 1;
  });
}

const STEERING = {
  pause: { steer: pause, done: 'paused' },
  resume: { steer: resume, done: 'resumed' },
  cancel: { steer: cancel, done: 'cancelled' },
};

export async function steerRuns(
  command: Steering,
  names: readonly string[],
  options: BackfillOptions,
): Promise<void> {
  const tables = chosen(names);
  await inEnvironment({ ...options, needs: 'database' }, async (environment) => {
    await ensureSchema(environment);
    const pool = openPoolIn(environment);
    const done: Record<string, boolean> = {};
    for (const each of tables) done[each.name] = await STEERING[command].steer(pool, each);
    const lines = tables.map(
      ({ name }) => `${name}: ${done[name] ? STEERING[command].done : `nothing to ${command}`}`,
    );
    if (command === 'resume' && Object.values(done).includes(true))
      lines.push(
        'Workers go on with it: npx annals worker (npx annals backfill start watches, too)',
      );
    environment.result(done, lines.join('\n'));
    return 0;
  });
}

async function showDryRun(tables: readonly Transform[], options: StartOptions): Promise<void> {
  await inEnvironment({ ...options, needs: 'database', onlyLooks: true }, async (environment) => {
    const pool = openPoolIn(environment);
    await ensureSchema(environment);
    const found = await whileWaiting('Trying a sample', () =>
      Promise.all(tables.map((each) => dryRun(pool, each))),
    );
    environment.result(found, dryRuns(found));
    return 0;
  });
}

function openPoolIn({ databaseUrl, closer }: Environment): pg.Pool {
  const pool = openPool(databaseUrl, 4);
  closer.add('pool', () => pool.end());
  return pool;
}

const namesOf = (tables: readonly Transform[]) => tables.map(({ name }) => name);

/** @throws {UsageError} for a name that is no table's */
function chosen(names: readonly string[]): readonly Transform[] {
  if (names.length === 0) return TRANSFORMS;
  const found = names.map((name) => {
    const named = TRANSFORMS.find((each) => each.name === name || each.table === name);
    if (named) return named;
    throw new UsageError(`got the table ${name}; takes ${namesOf(TRANSFORMS).join(', ')}`);
  });
  return [...new Set(found)];
}

/** @throws {UsageError} naming the option that is out of its range */
function runOptionsOf(options: StartOptions): RunOptions {
  return {
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
}

function whole(name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= min && value <= max) return value;
  throw new UsageError(
    `${name}: got ${text || 'nothing'}; takes a whole number from ${min} to ${max}`,
  );
}
