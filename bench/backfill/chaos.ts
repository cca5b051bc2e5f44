import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { Command } from 'commander';
import { Redis } from 'ioredis';
import type pg from 'pg';

import { openPool } from '../../src/backfill/database.ts';
import { start } from '../../src/backfill/runs.ts';
import { readStatus } from '../../src/backfill/status.ts';
import type { RunOptions } from '../../src/backfill/step.ts';
import type { Phase } from '../../src/backfill/lanes.ts';
import type { Transform } from '../../src/backfill/transform.ts';
import { TRANSFORMS, transformOf } from '../../src/backfill/transforms/index.ts';
import { verify } from '../../src/backfill/verify.ts';
import type { Ground } from '../../src/demo/ground.ts';
import type { QueueLocation } from '../../src/queues/backend.ts';
import { onOwnGround } from '../ground.ts';
import { backends, queueOption, type QueueChoice } from '../queues.ts';
import { wholeNumber } from '../command.ts';
import { copyDatabase, seedPlainRows, withClient } from './data.ts';
import { startWorker, type Timings } from './workerProcess.ts';
import { startWriters, type Ledger } from './writers.ts';

/** What `--report` writes. */
interface ChaosReport {
  ok: boolean;
  kills: number;
  /** Rows that lack a value in the end. */
  missed: number;
  /** Values of the application that were replaced, in any column that the backfill fills in. */
  overwritten: number;
  /** Deleted rows that are there. */
  resurrected: number;
  /** Chunks that another worker took over, and that may have been done in part before. */
  repeatedChunks: number;
  /** What they may be: those that a killed worker was at, and one a lane whenever the queue was emptied. */
  repeatedAtMost: number;
  queueFlushes: number;
  /** Whether the tables equal those of a run on the same data that nobody disturbed. */
  hashEqual: boolean;
}

const WORKERS = 2;
/** Chunks that a worker is at, by default. */
const CONCURRENCY = 2;
/** So that a kill costs seconds, not those of a worker's defaults; more than a task waits for its turn, on a busy machine too. */
const HASTY: Timings = { lookEveryMs: 100, leaseMs: 2000, jobLockMs: 1000 };
/** Chunks that are committed between two kills, at least: who is killed is at work. */
const CHUNKS_PER_KILL = 20;
const REST_MS = 20;
const CHUNK_ROWS = 25;
const LARGE = TRANSFORMS.filter(({ name }) => name !== 'agents');
const NAMES = TRANSFORMS.map(({ name }) => name);

async function chaos(
  ground: Ground,
  wantedKills: number,
  rows: number,
  timings: Timings,
): Promise<ChaosReport> {
  const { databaseUrl, queue } = ground;
  await seedPlainRows(databaseUrl, rows);
  const pool = openPool(databaseUrl, 4);
  const begin = async (options: Partial<RunOptions>, tables = TRANSFORMS) => {
    for (const transform of tables) await start(pool, transform, options);
  };
  await begin({ maxChunkRows: CHUNK_ROWS, restMs: REST_MS });
  const writers = startWriters(databaseUrl, rows);
  const workers = Array.from({ length: WORKERS }, () => startWorker(ground, timings));

  let kills = 0;
  let queueFlushes = 0;
  let repeatedAtMost = 0;
  while (kills < wantedKills) {
    const until = (await committedChunks(pool)) + CHUNKS_PER_KILL * (1 + Math.random());
    while ((await committedChunks(pool)) < until) {
      await begin({ maxChunkRows: CHUNK_ROWS, restMs: REST_MS }); // whatever has ended begins anew
      await sleep(20 + Math.random() * 50);
    }
    const victim = Math.floor(Math.random() * WORKERS);
    await kill(workers[victim] as ChildProcess);
    kills++;
    repeatedAtMost += CONCURRENCY;
    if (kills % Math.max(2, Math.ceil(wantedKills / 4)) === 1) {
      await flush(queue, pool);
      queueFlushes++;
      repeatedAtMost += await openLanes(pool);
    }
    workers[victim] = startWorker(ground, timings);
    console.log(`kill ${kills}, queue flushed ${queueFlushes} times: ${await progress(pool)}`);
  }
  // The last runs begin while the writers are at work, which stop when the first of them has filled in
  // and checked its table. What was written behind a cursor or behind the check until then is theirs
  // to find: nothing is started that could make good what they miss. Agents, of which there are few,
  // would be over by then: their run begins as the writers stop, since what plain sessions count
  // for after its end is for the next one.
  await begin({ maxChunkRows: CHUNK_ROWS, restMs: REST_MS }, LARGE);
  await reached(pool, 'sweep', LARGE);
  await begin({ maxChunkRows: CHUNK_ROWS, restMs: REST_MS }, [transformOf('agents')]);
  await writers.stop();
  await finished(pool);
  // A run is right as of the moment at which its check began. What the writers changed after that,
  // behind the check's back, is for the next one, as it is for a run that nobody disturbed.
  await begin({});
  await finished(pool);
  await Promise.all(workers.map(kill)); // idle

  const found = await audit(pool, writers.ledger);
  const { repeatedChunks } = (
    await pool.query<{ repeatedChunks: number }>(
      `SELECT sum("revivals")::int AS "repeatedChunks" FROM "BackfillLane"`,
    )
  ).rows[0] as { repeatedChunks: number };
  const disturbed = await digest(pool);
  await pool.end();
  const calm = await calmDigest(ground, writers.ledger, timings);
  const hashEqual = disturbed === calm;
  const isWhole = found.missed + found.overwritten + found.resurrected === 0;
  const isProof = queueFlushes >= Math.min(2, Math.ceil(kills / 2)); // of what the chunks outlive
  const ok = isWhole && hashEqual && isProof && repeatedChunks <= repeatedAtMost;
  return { ok, kills, queueFlushes, ...found, repeatedChunks, repeatedAtMost, hashEqual };
}

async function committedChunks(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<{ n: number }>(
    `SELECT sum("chunks")::int AS n FROM "BackfillLane"`,
  );
  return rows[0]?.n ?? 0;
}

/** Lanes that are open, and those that each run may open while we look. */
async function openLanes(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<{ n: number }>(
    `SELECT count(*)::int AS n FROM "BackfillLane" WHERE NOT "isDone"`,
  );
  return (rows[0]?.n ?? 0) + NAMES.length;
}

async function kill(worker: ChildProcess): Promise<void> {
  if (worker.exitCode !== null)
    throw new Error(`a worker ended by itself, with ${worker.exitCode}`);
  worker.kill('SIGKILL');
  await once(worker, 'exit');
}

/** The queue forgets everything. The servers are our own: nobody else has anything in them. */
async function flush(queue: QueueLocation, pool: pg.Pool): Promise<void> {
  if (queue.kind === 'redis') {
    const redis = new Redis(queue.url);
    await redis.flushall();
    redis.disconnect();
    return;
  }
  // Workers lock jobs in an order of their own: without the table's lock, this could deadlock with one.
  const jobs = `"${queue.prefix}".job`;
  await pool.query(`BEGIN; LOCK TABLE ${jobs} IN EXCLUSIVE MODE; DELETE FROM ${jobs}; COMMIT`);
}

async function progress(pool: pg.Pool): Promise<string> {
  const runs = await readStatus(pool, NAMES);
  return runs
    .map(
      ({ table, phase, fraction, reason }) =>
        `${table} ${phase} ${Math.floor(100 * fraction)}%${reason ? ` (${reason})` : ''}`,
    )
    .join(', ');
}

/** Waits until one of the runs has come to the phase. */
async function reached(pool: pg.Pool, phase: Phase, tables: readonly Transform[]): Promise<void> {
  const names = tables.map(({ name }) => name);
  for (let looks = 0; ; looks++) {
    const runs = await readStatus(pool, names);
    if (runs.some((run) => run.phase === phase)) return;
    if (looks % 200 === 0) console.log(await progress(pool));
    await sleep(50);
  }
}

/** A worker's lanes are taken over within 60 s; so much may nothing at all happen. */
async function finished(pool: pg.Pool): Promise<void> {
  let last = '';
  for (let quietMs = 0; quietMs < 60_000; quietMs += 100) {
    const runs = await readStatus(pool, NAMES);
    if (runs.every(({ status }) => status !== 'running')) return;
    const now = JSON.stringify(runs.map(({ chunks, phase }) => [chunks, phase]));
    if (now !== last) quietMs = 0;
    last = now;
    await sleep(100);
  }
  throw new Error('the backfill has stood still for 60 s');
}

async function audit(pool: pg.Pool, { inserted, deleted, set }: Ledger) {
  const verified = await Promise.all(TRANSFORMS.map((transform) => verify(pool, transform)));
  const count = async (sql: string, params: unknown[]) =>
    (await pool.query<{ n: number }>(sql, params)).rows[0]?.n ?? NaN;
  const late = await count(
    `SELECT count(*)::int AS n FROM unnest($1::text[]) AS x (id)
     WHERE NOT EXISTS (SELECT FROM "AgentSession" s WHERE s."id" = x.id AND s."sessionPurpose" = 'late' AND s."sessionTags" = '{late}')
        OR NOT EXISTS (SELECT FROM "ModuleState" s WHERE s."id" = x.id AND s."stateHash" IS NOT NULL)
        OR NOT EXISTS (SELECT FROM "InteractionMemory" m WHERE m."id" = x.id AND m."confidence" = m."importance")`,
    [inserted],
  );
  let overwritten = 0;
  for (const [column, rows] of set) {
    const [table, name] = column.split('.');
    overwritten += await count(
      `SELECT count(*)::int AS n FROM unnest($1::text[], $2::text[]) AS x (id, value) JOIN "${table}" t USING (id)
       WHERE t."${name}"::text IS DISTINCT FROM x.value`,
      [[...rows.keys()], [...rows.values()]],
    );
  }
  return {
    missed:
      late +
      verified.reduce(
        (sum, { remaining, differing, quarantined }) => sum + remaining + differing + quarantined,
        0,
      ),
    overwritten,
    resurrected: await count(
      `SELECT count(*)::int AS n FROM (SELECT "id" FROM "AgentSession" UNION ALL SELECT "id" FROM "ModuleState"
       UNION ALL SELECT "id" FROM "InteractionMemory") r WHERE "id" = ANY ($1)`,
      [deleted],
    ),
  };
}

/** Makes the final data plain again, but for what the application set, and runs over it in peace. */
async function calmDigest(ground: Ground, { set }: Ledger, timings: Timings): Promise<string> {
  const databaseUrl = await copyDatabase(ground.databaseUrl, 'chaos_calm');
  await withClient(databaseUrl, async (client) => {
    await client.query(`TRUNCATE "BackfillRun" CASCADE; TRUNCATE "AgentVersion"`);
    for (const { table, columns } of TRANSFORMS) {
      const plain = columns.map(({ name, unset }) => `"${name}" = ${unset ?? 'NULL'}`).join(', ');
      await client.query(`UPDATE "${table}" SET ${plain}`);
    }
    for (const [column, rows] of set) {
      const [table, name] = column.split('.');
      const { columns = [] } = TRANSFORMS.find((transform) => transform.table === table) ?? {};
      const type = columns.find((each) => each.name === name)?.type;
      await client.query(
        `UPDATE "${table}" t SET "${name}" = x.value::${type} FROM unnest($1::text[], $2::text[]) AS x (id, value) WHERE t."id" = x.id`,
        [[...rows.keys()], [...rows.values()]],
      );
    }
  });
  const queue =
    ground.queue.kind === 'redis'
      ? { ...ground.queue, prefix: 'calm' }
      : { ...ground.queue, url: databaseUrl };
  const pool = openPool(databaseUrl, 2);
  for (const transform of TRANSFORMS) await start(pool, transform);
  const worker = startWorker({ ...ground, databaseUrl, queue }, timings);
  await finished(pool);
  await kill(worker);
  const found = await digest(pool);
  await pool.end();
  return found;
}

async function digest(pool: pg.Pool): Promise<string> {
  const tables = [
    ...TRANSFORMS.map(
      ({ table }) =>
        `SELECT md5(string_agg(t::text, ',' ORDER BY t."id")) AS "it" FROM "${table}" t`,
    ),
    `SELECT md5(string_agg(concat_ws(',', "agentId", "versionNumber", "changes", "isActive", "activatedAt", "createdAt"), ';' ORDER BY "agentId")) AS "it" FROM "AgentVersion"`,
  ];
  const found = await Promise.all(tables.map((sql) => pool.query<{ it: string }>(sql)));
  return found.map(({ rows }) => rows[0]?.it).join(' ');
}

const command = new Command('backfill:chaos')
  .description(
    'Kills backfill workers with -9, empties their queue and writes to the tables meanwhile; then compares',
  )
  .option('--kills <n>', 'workers to kill, on each back end', wholeNumber, 30)
  .option('--rows <n>', 'rows of each table, at least 1,000', wholeNumber, 6000)
  .option('--defaults', 'leases, locks and looks as workers have them (default: shorter ones)')
  .addOption(queueOption())
  .option('--report <file>', 'write the outcome as JSON to this file')
  .addHelpText(
    'after',
    '\nExit codes: 0 nothing was missed, overwritten or resurrected, no more was repeated than a kill may cost, ' +
      'and the tables are equal; 1 otherwise.',
  );

const options = command
  .parse()
  .opts<{ kills: number; rows: number; defaults?: true; queue: QueueChoice; report?: string }>();
const timings = options.defaults ? {} : HASTY;
const runs: ChaosReport[] = [];
for (const backend of backends(options.queue)) {
  console.log(`queues on ${backend}`);
  const report = await onOwnGround((ground) =>
    chaos(withQueues(ground, backend), options.kills, options.rows, timings),
  );
  console.table(report);
  runs.push(report);
}
const report = { ...total(runs), runs };
if (options.report) writeFileSync(options.report, `${JSON.stringify(report, null, 2)}\n`);
process.exit(report.ok ? 0 : 1);

function withQueues(ground: Ground, backend: QueueLocation['kind']): Ground {
  if (ground.queue.kind === backend) return ground;
  const { databaseUrl: url, queue } = ground;
  return { ...ground, queue: { kind: 'postgres', url, prefix: queue.prefix } };
}

/** The figures of all runs as one. */
function total(all: readonly ChaosReport[]): ChaosReport {
  const sum = (figure: keyof ChaosReport) =>
    all.reduce((before, run) => before + Number(run[figure]), 0);
  return {
    ok: all.every(({ ok }) => ok),
    kills: sum('kills'),
    queueFlushes: sum('queueFlushes'),
    missed: sum('missed'),
    overwritten: sum('overwritten'),
    resurrected: sum('resurrected'),
    repeatedChunks: sum('repeatedChunks'),
    repeatedAtMost: sum('repeatedAtMost'),
    hashEqual: all.every(({ hashEqual }) => hashEqual),
  };
}
