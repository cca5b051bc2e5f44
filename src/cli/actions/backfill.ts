import type pg from 'pg';

import { openPool } from '../../backfill/database.ts';
import { cancel, pause, resume, retry, rollback, start } from '../../backfill/runs.ts';
import { readStatus, type RunStatus } from '../../backfill/status.ts';
import type { Transform } from '../../backfill/transform.ts';
import { dryRun, verify } from '../../backfill/verify.ts';
import type {
  BackfillOptions,
  Reworking,
  StartOptions,
  Steering,
  SteerOptions,
} from '../backfill.ts';
import { chosen, namesOf, runOptionsOf } from '../backfillOptions.ts';
import { dryRuns, summary, verification } from '../backfillReport.ts';
import { workAndWatch } from '../backfillWatch.ts';
import { inEnvironment, type Environment } from '../environment.ts';
import { whileWaiting } from '../progress.ts';
import { ensureSchema } from '../schema.ts';

export async function startRuns(names: readonly string[], options: StartOptions): Promise<void> {
  const tables = chosen(names);
  const runOptions = runOptionsOf(options);
  if (options.dryRun) return showDryRun(tables, options);
  const needs = options.detach ? 'database' : 'all';
  await inEnvironment({ ...options, needs }, async (environment) => {
    const pool = openPoolIn(environment);
    await ensureSchema(environment);
    const begun = await whileWaiting('Starting', () =>
      Promise.all(tables.map((each) => start(pool, each, runOptions))),
    );
    const found = await readStatus(pool, namesOf(tables));
    tables.forEach(({ name }, index) => {
      const run = found.find(({ table }) => table === name);
      environment.say(`${name}: ${begun[index] ? 'started' : underWay(run)}`);
    });
    if (!options.detach) return workAndWatch(environment, pool, namesOf(tables), 'start');
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
      return workAndWatch(environment, pool, namesOf(watched), command);
    result(found, watched.length > 0 ? 'Workers do it: npx annals worker' : 'Nothing was changed.');
    return 0;
  });
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
    return found.every(({ refused }) => refused.length === 0) ? 0 : 1;
  });
}

function openPoolIn({ databaseUrl, closer }: Environment): pg.Pool {
  const pool = openPool(databaseUrl, 4);
  closer.add('pool', () => pool.end());
  return pool;
}
