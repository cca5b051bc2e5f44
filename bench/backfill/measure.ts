import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import type pg from 'pg';

import { openPool } from '../../src/backfill/database.ts';
import { start } from '../../src/backfill/runs.ts';
import { readStatus } from '../../src/backfill/status.ts';
import { DEFAULT_LIMITS } from '../../src/backfill/throttle.ts';
import { TRANSFORMS } from '../../src/backfill/transforms/index.ts';
import { createPrismaClient } from '../../src/database/client.ts';
import type { Ground } from '../../src/demo/ground.ts';
import { canonicalJson, sha256Hex } from '../../src/json.ts';
import type { BackfillReport } from './command.ts';
import { copyDatabase, IDS, RANDOM_IDS, seedPlainRows, withClient } from './data.ts';
import { startWorker, type Report } from './workerProcess.ts';

/** Rows of each table that the loop goes through. */
const LOOP_ROWS = 1000;

/** The same work as one statement a table, as well as we can write it; its hash is not canonical. */
const FLOOR = [
  `UPDATE "AgentSession" t SET "sessionSource" = 'user',
     "sessionPurpose" = coalesce("context" ->> 'purpose', "context" ->> 'intent', "context" ->> 'goal'),
     "sessionTags" = ARRAY(SELECT e #>> '{}' FROM jsonb_array_elements("context" -> 'tags') e WHERE jsonb_typeof(e) = 'string')`,
  `UPDATE "ModuleState" t SET "stateType" = 'module_state', "previousStateId" = o.before,
     "stateHash" = encode(sha256(convert_to(t."state"::text, 'UTF8')), 'hex')
   FROM (SELECT "id", lag("id") OVER (PARTITION BY "moduleId" ORDER BY "createdAt", "id") AS before FROM "ModuleState") o
   WHERE o."id" = t."id"`,
  `UPDATE "AI_Agent" t SET "learningMode" = 'passive', "trainingStatus" = 'initial',
     "specializations" = ARRAY(SELECT key FROM jsonb_each("capabilities") WHERE value = 'true'),
     "lastActiveAt" = coalesce(s.latest, "updatedAt"), "totalSessions" = coalesce(s.n, 0)
   FROM (SELECT "agentId", max("startedAt") AS latest, count(*) AS n FROM "AgentSession" GROUP BY 1) s WHERE s."agentId" = t."id"`,
  `INSERT INTO "AgentVersion" ("id", "agentId", "versionNumber", "changes", "isActive", "activatedAt", "createdAt")
   SELECT gen_random_uuid(), "id", '1.0.0', jsonb_build_object('configuration', "configuration"), true, "createdAt", "createdAt" FROM "AI_Agent"`,
  `UPDATE "InteractionMemory" SET "sourceType" = 'user_input', "verificationStatus" = 'unverified', "lastAccessedAt" = "createdAt",
     "confidence" = least(greatest("importance", 0), 1),
     "memoryType" = CASE lower("type") WHEN 'fact' THEN 'fact' WHEN 'preference' THEN 'preference' WHEN 'conversation' THEN 'interaction' END`,
];

export async function measure(
  ground: Ground,
  wanted: number,
  ids: 'mixed' | 'random',
): Promise<BackfillReport> {
  const perTable = Math.max(100, Math.round(wanted / 3.01));
  await seedPlainRows(ground.databaseUrl, perTable, ids === 'random' ? RANDOM_IDS : IDS);
  const rows = 3 * perTable + Math.floor(perTable / 100);
  console.log(`${rows.toLocaleString('en')} rows in four tables`);
  const [floorUrl, engineUrl, loopUrl] = [
    await copyDatabase(ground.databaseUrl, 'bench_floor'),
    await copyDatabase(ground.databaseUrl, 'bench_engine'),
    await copyDatabase(ground.databaseUrl, 'bench_loop'),
  ];
  const floor =
    rows /
    (await seconds(floorUrl, () =>
      withClient(floorUrl, async (client) => {
        for (const statement of FLOOR) await client.query(statement);
      }),
    ));
  console.log(`floor: ${Math.round(floor).toLocaleString('en')} rows a second`);
  const engineRun = await runEngine(engineUrl, ground);
  const engine = rows / (engineRun.tookMs / 1000);
  console.log(`engine: ${Math.round(engine).toLocaleString('en')} rows a second, verified`);
  const loop = (4 * LOOP_ROWS) / (await seconds(loopUrl, () => runLoop(loopUrl)));
  return {
    rows,
    floorRowsPerSecond: Math.round(floor),
    engineRowsPerSecond: Math.round(engine),
    loopRowsPerSecond: Math.round(loop),
    ratioToFloor: round(engine / floor),
    ratioToLoop: round(engine / loop),
    ...memoryOf(engineRun),
    estimateAtTenth: round(estimateAtTenth(engineRun.estimates)),
  };
}

const round = (value: number) => Math.round(value * 100) / 100;

interface Estimate {
  atMs: number;
  leftMs: number;
}

/** What the engine's process had: in all, at a quarter of the run, and at most in its last quarter. */
function memoryOf({ memory, tookMs }: EngineRun) {
  const between = (from: number, to: number) =>
    memory.filter(({ atMs }) => atMs >= from * tookMs && atMs <= to * tookMs);
  const most = (samples: EngineRun['memory']) =>
    Math.round(Math.max(0, ...samples.map(({ rss }) => rss)) / 2 ** 20);
  return {
    peakRssMb: most(memory),
    quarterRssMb: most(between(0.25, 1).slice(0, 1)),
    lastQuarterRssMb: most(between(0.75, 1)),
  };
}

/** What the run was said to take after a tenth of it, by what it took. */
function estimateAtTenth(estimates: readonly Estimate[]): number {
  const tookMs = estimates.at(-1)?.atMs ?? NaN;
  const first = estimates.find(({ atMs }) => atMs >= tookMs / 10);
  return first ? (first.atMs + first.leftMs) / tookMs : NaN;
}

/** Each begins with its pages in the same state: written out. */
async function seconds(databaseUrl: string, work: () => Promise<unknown>): Promise<number> {
  await withClient(databaseUrl, (client) => client.query('CHECKPOINT'));
  const startedAt = performance.now();
  await work();
  return (performance.now() - startedAt) / 1000;
}

interface EngineRun {
  tookMs: number;
  estimates: Estimate[];
  memory: { atMs: number; rss: number }[];
}

/** In a process that does nothing else, and is there before the clock runs. */
async function runEngine(databaseUrl: string, { queue, env }: Ground): Promise<EngineRun> {
  const location = queue.kind === 'redis' ? queue : { ...queue, url: databaseUrl };
  const worker = startWorker({ databaseUrl, queue: location, env });
  const ended = once(worker, 'exit').then(() => {
    throw new Error('the process of the engine ended by itself');
  });
  ended.catch(() => {});
  await Promise.race([once(worker, 'message'), ended]);
  const run: EngineRun = { tookMs: 0, estimates: [], memory: [] };
  const pool = openPool(databaseUrl, 2);
  try {
    const watching = async () => {
      const startedAt = performance.now();
      worker.on('message', ({ rss }: Report) => {
        run.memory.push({ atMs: performance.now() - startedAt, rss });
      });
      // What an autovacuum of its table would hold back is not what is measured.
      const limits = { ...DEFAULT_LIMITS, vacuumMs: Number.MAX_SAFE_INTEGER };
      await Promise.all(TRANSFORMS.map((transform) => start(pool, transform, { limits })));
      worker.send('look');
      await watch(pool, startedAt, run.estimates);
    };
    run.tookMs = 1000 * (await seconds(databaseUrl, () => Promise.race([watching(), ended])));
    return run;
  } finally {
    worker.kill();
    await pool.end();
  }
}

/** Waits until all runs are completed, and writes down how long they say that it will take. */
async function watch(pool: pg.Pool, startedAt: number, estimates: Estimate[]): Promise<void> {
  const names = TRANSFORMS.map(({ name }) => name);
  for (;;) {
    const runs = await readStatus(pool, names);
    if (runs.every(({ status }) => status === 'completed')) return;
    const left = runs.flatMap(({ status, etaMs }) => (status === 'running' ? [etaMs] : []));
    if (!left.includes(null)) {
      estimates.push({
        atMs: performance.now() - startedAt,
        leftMs: Math.max(...left.map(Number)),
      });
    }
    const wrong = runs.find(({ status }) => status !== 'completed' && status !== 'running');
    if (wrong) throw new Error(`${wrong.table}: ${wrong.status} ${wrong.reason}`);
    await sleep(100);
  }
}

/** What most people write: read a row, work out its values, update it. */
async function runLoop(databaseUrl: string): Promise<void> {
  const prisma = createPrismaClient(databaseUrl);
  const page = { take: LOOP_ROWS, orderBy: { id: 'asc' }, select: { id: true } } as const;
  for (const { id } of await prisma.agentSession.findMany(page)) {
    const { context } = await prisma.agentSession.findUniqueOrThrow({
      where: { id },
      select: { context: true },
    });
    const { purpose, tags } = context as { purpose: string; tags: unknown[] };
    const sessionTags = tags.filter((tag) => typeof tag === 'string');
    await prisma.agentSession.update({
      where: { id },
      data: { sessionPurpose: purpose, sessionTags, sessionSource: 'user' },
    });
  }
  for (const { id } of await prisma.moduleState.findMany(page)) {
    const { state, moduleId, createdAt } = await prisma.moduleState.findUniqueOrThrow({
      where: { id },
    });
    const before = await prisma.moduleState.findFirst({
      where: { moduleId, OR: [{ createdAt: { lt: createdAt } }, { createdAt, id: { lt: id } }] },
      orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
    });
    const stateHash = sha256Hex(canonicalJson(state));
    await prisma.moduleState.update({
      where: { id },
      data: { stateHash, stateType: 'module_state', previousStateId: before?.id ?? null },
    });
  }
  for (const { id } of await prisma.interactionMemory.findMany(page)) {
    const { type, importance, createdAt } = await prisma.interactionMemory.findUniqueOrThrow({
      where: { id },
    });
    const confidence = Math.min(1, Math.max(0, importance));
    await prisma.interactionMemory.update({
      where: { id },
      data: {
        memoryType: type.toLowerCase(),
        confidence,
        lastAccessedAt: createdAt,
        sourceType: 'user_input',
        verificationStatus: 'unverified',
      },
    });
  }
  for (const { id } of await prisma.aI_Agent.findMany(page)) {
    const agent = await prisma.aI_Agent.findUniqueOrThrow({ where: { id } });
    const totalSessions = await prisma.agentSession.count({ where: { agentId: id } });
    const specializations = Object.keys(agent.capabilities as object);
    await prisma.aI_Agent.update({
      where: { id },
      data: {
        specializations,
        totalSessions,
        learningMode: 'passive',
        trainingStatus: 'initial',
        lastActiveAt: agent.updatedAt,
      },
    });
    await prisma.agentVersion.create({
      data: { agentId: id, versionNumber: '1.0.0', changes: {}, isActive: true },
    });
  }
  await prisma.$disconnect();
}
