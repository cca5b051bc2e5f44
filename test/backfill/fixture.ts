import { setTimeout as sleep } from 'node:timers/promises';

import type pg from 'pg';

import { openPool } from '../../src/backfill/database.ts';
import { start } from '../../src/backfill/runs.ts';
import { readStatus, type RunStatus } from '../../src/backfill/status.ts';
import type { RunOptions } from '../../src/backfill/step.ts';
import type { Transform } from '../../src/backfill/transform.ts';
import { TRANSFORMS, transformOf } from '../../src/backfill/transforms/index.ts';
import { startBackfillWorker, type BackfillWorker } from '../../src/backfill/worker.ts';
import { createLogger } from '../../src/logger.ts';
import type { QueueLocation } from '../../src/queues/backend.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { testConfig } from '../support/pipeline.ts';

export const SESSIONS = transformOf('agent-sessions');
export const STATES = transformOf('module-states');
export const AGENTS = transformOf('agents');
export const MEMORIES = transformOf('interaction-memories');

/** Of a test's workers: how soon one takes over from another that is gone. */
export const TIMINGS = { lookEveryMs: 100, leaseMs: 2000, jobLockMs: 1000 };

/** A database with plain rows, and what a test does to it. */
export interface Fixture extends TestDatabase {
  pool: pg.Pool;
  location: QueueLocation;
  /** Starts a worker of this process; `drop` stops it. */
  work(): Promise<BackfillWorker>;
  start(options?: Partial<RunOptions>, tables?: readonly Transform[]): Promise<void>;
  /** The latest run of a table. */
  status(table: Transform): Promise<RunStatus>;
  /** Waits until the runs of the tables are over. */
  finished(tables?: readonly Transform[]): Promise<RunStatus[]>;
}

export async function createFixture(
  locate: (db: TestDatabase) => QueueLocation = inPostgres,
): Promise<Fixture> {
  const db = await createTestDatabase();
  const pool = openPool(db.url, 4);
  const location = locate(db);
  const workers: BackfillWorker[] = [];
  const names = (tables: readonly Transform[]) => tables.map(({ name }) => name);
  return {
    ...db,
    pool,
    location,
    work: async () => {
      const worker = await startBackfillWorker({
        databaseUrl: db.url,
        queue: location,
        log: createLogger(testConfig()),
        ...TIMINGS,
      });
      workers.push(worker);
      return worker;
    },
    start: async (options = {}, tables = TRANSFORMS) => {
      for (const table of tables) await start(pool, table, options);
    },
    status: async (table) => {
      const [run] = await readStatus(pool, [table.name]);
      if (!run) throw new Error(`no run of ${table.name}`);
      return run;
    },
    finished: async (tables = TRANSFORMS) => {
      const giveUpAt = Date.now() + 50_000;
      for (;;) {
        const found = await readStatus(pool, names(tables));
        if (found.every(({ status }) => status !== 'running' && status !== 'paused')) return found;
        if (Date.now() > giveUpAt) throw new Error(`not finished: ${JSON.stringify(found)}`);
        await sleep(50);
      }
    },
    drop: async () => {
      await Promise.all(workers.map((worker) => worker.stop(5000)));
      await pool.end();
      await db.drop();
    },
  };
}

const inPostgres = (db: TestDatabase): QueueLocation => ({
  kind: 'postgres',
  url: db.url,
  prefix: 'annals',
});

/** Plain rows: so many sessions, states (of 10 modules) and memories, and a hundredth as many agents. */
export async function seedPlain(db: Pick<TestDatabase, 'sql'>, rows: number): Promise<void> {
  await db.sql(`INSERT INTO "User" ("id") VALUES ('user') ON CONFLICT DO NOTHING`);
  const statements = [
    `INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "createdAt", "updatedAt")
     SELECT 'agent-' || n, 'user', 'Agent', '["search", "plan"]', '{"model": "m"}', '2024-01-01', '2024-02-01'
     FROM generate_series(0, $1 / 100) n`,
    `INSERT INTO "AgentSession" ("id", "sessionId", "agentId", "status", "context", "startedAt", "createdAt", "updatedAt")
     SELECT md5(n::text), 'session-' || n, 'agent-' || n % ($1 / 100 + 1), 'ended',
       jsonb_build_object('purpose', 'purpose ' || n, 'tags', '["a", 1, "b"]'::jsonb), timestamp '2024-03-01' + n * interval '1 s', '2024-03-01', '2024-03-01'
     FROM generate_series(1, $1) n`,
    `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "createdAt", "updatedAt")
     SELECT md5(n::text), 'module-' || n % 10, jsonb_build_object('step', n, 'a', 1.50), '1', timestamp '2024-01-01' + n / 20 * interval '1 s', '2024-01-01'
     FROM generate_series(1, $1) n`,
    `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "createdAt", "updatedAt")
     SELECT md5(n::text), 'user', 'agent-0', 'Knowledge', '{}', n % 11 / 10.0, '2024-01-01', '2024-01-01'
     FROM generate_series(1, $1) n`,
  ];
  for (const statement of statements) await db.sql(statement, [rows]);
}

/** A digest of all that each table holds. */
export async function contents(db: TestDatabase): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const { table } of TRANSFORMS) {
    const [row] = await db.sql(
      `SELECT coalesce(md5(json_agg(t ORDER BY t."id")::text), '') AS text FROM "${table}" t`,
    );
    found[table] = row.text;
  }
  const [versions] = await db.sql(
    `SELECT md5(json_agg(json_build_array("agentId", "versionNumber", "changes", "isActive", "activatedAt", "createdAt") ORDER BY "agentId", "versionNumber")::text) AS text FROM "AgentVersion"`,
  );
  found['AgentVersion'] = versions.text;
  return found;
}
