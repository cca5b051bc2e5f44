import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import type { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import type pg from 'pg';

import { createPool } from '../../src/database/connection.ts';
import {
  openProducerQueue,
  openQueue,
  type EventQueue,
  type QueueLocation,
} from '../../src/queues/backend.ts';
import { EVENT_KINDS, type EventKind } from '../../src/queues/events.ts';
import { isOutage } from '../../src/outage.ts';
import { makePayload, PARENTS, type Payload } from './payloads.ts';

/** What `--report` writes. */
export interface FuzzReport {
  ok: boolean;
  seed: number;
  payloads: number;
  /** Jobs that were committed in full. */
  committed: number;
  /** Jobs that are dead letters with a reason. */
  deadLetters: number;
  /** Payloads that the queue itself did not take (PostgreSQL refuses what is not JSON). */
  refusedByQueue: number;
  /** Worker processes that ended. */
  workersDied: number;
  /** Payloads that ended as neither, or whose events are not all accounted for. */
  lost: { n: number; what: string; why: string }[];
}

export interface FuzzOptions {
  databaseUrl: string;
  queue: QueueLocation;
  payloads: number;
  seed: number;
  onProgress?: (done: number) => void;
}

/** Payloads that are on the queues at once. */
const ROUND = 2500;

/** Milliseconds in which a round is worked off, if no worker chokes on it. */
const ROUND_MS = 300_000;

/** Puts whatever a seed yields on the queues, and looks what became of each of it. */
export async function fuzz(options: FuzzOptions): Promise<FuzzReport> {
  const { databaseUrl, queue: location, seed, payloads } = options;
  const report: FuzzReport = {
    ok: false,
    seed,
    payloads,
    committed: 0,
    deadLetters: 0,
    refusedByQueue: 0,
    workersDied: 0,
    lost: [],
  };
  const pool = createPool({ connectionString: databaseUrl, max: 2 });
  await seedParents(pool);
  const worker = await startWorker(databaseUrl, location);
  worker.once('exit', () => report.workersDied++);
  const queues = {} as Record<EventKind, { put: Queue<string>; look: EventQueue }>;
  for (const kind of EVENT_KINDS) {
    queues[kind] = { put: openProducerQueue(location, kind), look: openQueue(location, kind) };
    await Promise.all([queues[kind].put.waitUntilReady(), queues[kind].look.waitUntilReady()]);
  }
  const redis = location.kind === 'redis' ? new Redis(location.url) : undefined;
  try {
    for (let from = 0; from < payloads && report.workersDied === 0; from += ROUND) {
      const numbers = Array.from({ length: Math.min(ROUND, payloads - from) }, (_, n) => from + n);
      const round = numbers.map((n) => ({ n, id: `fuzz-${n}`, ...makePayload(seed, n) }));
      // While they are paused nobody takes a job before its bytes are what they shall be.
      await Promise.all(EVENT_KINDS.map((kind) => queues[kind].put.pause()));
      const taken = new Set<number>();
      await Promise.all(
        EVENT_KINDS.map(async (kind) => {
          for (const each of round) {
            if (each.kind !== kind) continue;
            if (await putOne(queues[kind].put, each, location, redis)) taken.add(each.n);
            else report.refusedByQueue++;
          }
        }),
      );
      await Promise.all(EVENT_KINDS.map((kind) => queues[kind].put.resume()));
      await workedOff(
        Object.values(queues).map(({ look }) => look),
        worker,
      );
      for (const kind of EVENT_KINDS) {
        const ofKind = round.filter((each) => taken.has(each.n) && each.kind === kind);
        await account(pool, queues[kind].look, ofKind, report);
        await queues[kind].look.clean(0, 0, 'failed');
      }
      options.onProgress?.(from + round.length);
    }
  } finally {
    redis?.disconnect();
    worker.removeAllListeners('exit'); // from here on it is meant to
    if (worker.connected) worker.disconnect();
    else worker.kill('SIGKILL');
    await Promise.all(
      Object.values(queues).flatMap(({ put, look }) => [put.close(), look.close()]),
    );
    await pool.end();
  }
  report.ok = report.lost.length === 0 && report.workersDied === 0;
  return report;
}

async function startWorker(databaseUrl: string, location: QueueLocation): Promise<ChildProcess> {
  const child = spawn(
    process.execPath,
    [
      '--import',
      'tsx',
      fileURLToPath(new URL('worker.ts', import.meta.url)),
      JSON.stringify(location),
    ],
    {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      env: {
        ...process.env,
        DATABASE_URL: databaseUrl,
        ANNALS_JOB_ATTEMPTS: '1',
        ANNALS_LOG_LEVEL: process.env['ANNALS_LOG_LEVEL'] ?? 'fatal',
      },
    },
  );
  const [message] = (await Promise.race([once(child, 'message'), once(child, 'exit')])) as [
    unknown,
  ];
  if (message !== 'ready') throw new Error('the worker did not start');
  return child;
}

type Numbered = Payload & { n: number; id: string };

/** @returns whether the queue took it */
async function putOne(
  queue: Queue<string>,
  { data, opts, id, kind }: Numbered,
  { prefix }: QueueLocation,
  redis: Redis | undefined,
): Promise<boolean> {
  try {
    // As bytes only where bytes can be written; PostgreSQL takes text.
    const text = typeof data === 'string' ? data : redis ? '{}' : data.toString('utf8');
    await queue.add(kind, text, { ...opts, jobId: id });
    if (redis && typeof data !== 'string')
      await redis.hset(`${prefix}:${kind}:${id}`, 'data', data);
    return true;
  } catch (error) {
    if (redis || isOutage(error)) throw error;
    return false;
  }
}

async function workedOff(queues: EventQueue[], worker: ChildProcess): Promise<void> {
  const giveUpAt = Date.now() + ROUND_MS;
  while (worker.exitCode === null && worker.signalCode === null && Date.now() < giveUpAt) {
    const counts = await Promise.all(queues.map((queue) => queue.getJobCounts(...OPEN)));
    if (counts.flatMap((each) => Object.values(each)).every((count) => count === 0)) return;
    await sleep(50);
  }
}

/** The states of a job that is neither done nor a dead letter. */
const OPEN = ['waiting', 'active', 'delayed', 'prioritized'] as const;

const TABLES: Record<EventKind, string[]> = {
  'memory-access': ['MemoryAccess'],
  transition: ['StateTransition'],
  metrics: ['SessionMetric', 'AgentMetric'],
  'session-event': ['SessionEvent'],
};

/** Finds every event of a round as a row or in a dead letter that has a reason. */
async function account(
  pool: pg.Pool,
  queue: EventQueue,
  round: Numbered[],
  report: FuzzReport,
): Promise<void> {
  const failed = new Map((await queue.getFailed()).map((job) => [job.id, job]));
  // By their numbers only: what is on the queue still may be unreadable.
  const open = new Set(await queue.getRanges([...OPEN], 0, -1));
  const eventsOf = new Map(round.map((each) => [each.id, parseEvents(each.data)]));
  const ids = [...eventsOf.values()]
    .flatMap((events) => (events ?? []).map(idOf))
    .filter((id) => id !== undefined);
  const tables = TABLES[queue.name as EventKind];
  const { rows } = await pool.query<{ id: string }>(
    tables
      .map((table) => `SELECT "id" FROM "${table}" WHERE "id" = ANY ($1::uuid[])`)
      .join(' UNION ALL '),
    [ids],
  );
  const stored = new Set(rows.map(({ id }) => id));

  for (const { id, n, what } of round) {
    const lose = (why: string) => report.lost.push({ n, what, why });
    const envelope = eventsOf.get(id);
    const events = envelope ?? [];
    const missing = events.filter((event) => !stored.has(idOf(event) ?? ''));
    const job = failed.get(id);
    if (open.has(id)) lose('it is still on the queue');
    else if (!job) {
      if (!envelope) lose('it is no envelope, and no dead letter either');
      else if (missing.length > 0)
        lose(`${missing.length} of its ${events.length} events are nowhere`);
      else report.committed++;
    } else if (!job.failedReason) lose('its dead letter has no reason');
    else {
      const kept = (job.data as { events?: unknown } | null)?.events;
      const isWhole = !Array.isArray(kept) || kept.length >= missing.length;
      if (isWhole) report.deadLetters++;
      else lose(`its dead letter keeps ${kept.length} of ${missing.length} events`);
    }
  }
}

/** The events of what reads as an envelope; undefined for all else, which is a dead letter as a whole. */
function parseEvents(data: string | Buffer): unknown[] | undefined {
  try {
    const value = JSON.parse(data.toString()) as { v?: unknown; events?: unknown } | null;
    return value?.v === 1 && Array.isArray(value.events) ? value.events : undefined;
  } catch {
    return undefined;
  }
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

function idOf(event: unknown): string | undefined {
  const id = (event as { id?: unknown } | null)?.id;
  return typeof id === 'string' && UUID.test(id) ? id.toLowerCase() : undefined;
}

async function seedParents(pool: pg.Pool): Promise<void> {
  const { agentId, memoryId, sessionId, stateId } = PARENTS;
  await pool.query(
    `INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "updatedAt") VALUES ($1, 'user', 'Agent', '[]', '{}', now()) ON CONFLICT DO NOTHING`,
    [agentId],
  );
  await pool.query(
    `INSERT INTO "AgentSession" ("id", "sessionId", "status", "updatedAt") VALUES ($1, $1, 'active', now()) ON CONFLICT DO NOTHING`,
    [sessionId],
  );
  await pool.query(
    `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "updatedAt") VALUES ($1, 'module', '{}', '1', now()) ON CONFLICT DO NOTHING`,
    [stateId],
  );
  await pool.query(
    `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt") VALUES ($1, 'user', $2, 'fact', '{}', 0.5, now()) ON CONFLICT DO NOTHING`,
    [memoryId, agentId],
  );
}
