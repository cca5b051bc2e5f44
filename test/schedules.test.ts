import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Job, Queue } from 'bullmq';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { createLogger } from '../src/logger.ts';
import { openTaskQueue, prepareQueues, type QueueLocation } from '../src/queues/backend.ts';
import { startSchedules, type Schedules } from '../src/schedules/runner.ts';
import { ensureScheduler } from '../src/schedules/scheduler.ts';
import type { Recount } from '../src/services/sessionCounts.ts';
import { createSession } from '../src/services/sessions.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { addIdleAccount, idleAccounts } from './support/events.ts';
import { describeBackends, testConfig } from './support/pipeline.ts';
import { spawnTsx } from './support/process.ts';

const EVERY_SECOND = '* * * * * *';

async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await sleep(50);
}

async function addAgents(db: TestDatabase, agents: number): Promise<void> {
  await db.sql(
    `INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "updatedAt")
     SELECT 'agent-' || n, 'user', '', '[]', '{}', now() FROM generate_series(1, $1) n`,
    [agents],
  );
}

const wrongAgents = async (db: TestDatabase): Promise<number> => {
  const [row] = await db.sql(
    `SELECT count(*)::int AS n FROM "AI_Agent" a LEFT JOIN
       (SELECT "agentId", count(*)::int AS n FROM "AgentSession" GROUP BY 1) s ON s."agentId" = a."id"
     WHERE a."totalSessions" <> coalesce(s.n, 0)`,
  );
  return row.n;
};

/** A database and a queue of a suite's own. */
function useQueue(locate: (db: TestDatabase) => QueueLocation) {
  const held = {} as {
    db: TestDatabase;
    location: QueueLocation;
    queue: Queue<Job<object, Recount>>;
  };
  beforeAll(async () => {
    held.db = await createTestDatabase();
    held.location = locate(held.db);
    await prepareQueues(held.location);
    held.queue = openTaskQueue(held.location, 'session-counts') as typeof held.queue;
    await held.db.sql(`INSERT INTO "User" ("id") VALUES ('user')`);
  });
  afterAll(async () => {
    await held.queue.close();
    await held.db.drop();
  });
  const start = (env: Record<string, string>): Promise<Schedules> => {
    const config = testConfig({ ANNALS_JOB_LOCK_MS: '2000', ...env });
    const [databaseUrl, queue] = [held.db.url, held.location];
    return startSchedules({
      databaseUrl,
      queue,
      config,
      log: createLogger(config),
      lookEveryMs: 200,
    });
  };
  return { held, start };
}

describeBackends('schedules', (locate) => {
  const { held, start } = useQueue(locate);
  const runs = () => held.queue.getJobs(['completed', 'active', 'waiting', 'delayed', 'failed']);

  it('recount once a period, however many workers and schedulers there are, and heal what they find', async () => {
    const { db, queue } = held;
    await addAgents(db, 100_000);
    await addIdleAccount(db);
    await db.sql(
      `INSERT INTO "AgentSession" ("id", "sessionId", "agentId", "status", "updatedAt")
       SELECT 's-' || n, 's-' || n, 'agent-' || n, 'active', now() FROM generate_series(1, 2000) n`,
    );
    await db.sql(`UPDATE "AI_Agent" a SET "totalSessions" = 1, "lastActiveAt" = s."startedAt"
      FROM "AgentSession" s WHERE s."agentId" = a."id"`);
    const [injected] = await db.sql(
      `WITH wrong AS (
         UPDATE "AI_Agent" SET "totalSessions" = "totalSessions" + 1 + length("id") % 3
         WHERE "id" IN (SELECT 'agent-' || n * 100 FROM generate_series(1, 1000) n)
         RETURNING 1 + length("id") % 3 AS drift)
       SELECT count(*)::int AS agents, sum(drift)::int AS drift FROM wrong`,
    );
    expect(injected.agents).toBe(1000);

    let creating = true;
    let created = 0;
    const since = performance.now();
    const create = async () => {
      // 50 a second, counted from the start: one that takes long does not slow the others down.
      const creations: Promise<unknown>[] = [];
      while (creating) {
        await sleep(Math.max(0, since + 20 * created - performance.now()));
        const agentId = `agent-${1 + ((created++ * 50) % 100_000)}`;
        creations.push(createSession(db.prisma, { sessionId: randomUUID(), agentId }));
      }
      await Promise.all(creations);
    };
    const creation = create();
    const env = { ANNALS_SESSION_COUNTS_SCHEDULE: EVERY_SECOND };
    const [workers] = await Promise.all([
      Promise.all([start(env), start(env)]),
      ...[1, 2, 3].map(() => ensureScheduler(queue, 'session-counts', EVERY_SECOND)),
    ]);
    const completed = () => queue.getJobs(['completed']);
    await until(async () => (await completed()).length >= 2);
    creating = false;
    const seconds = (performance.now() - since) / 1000;
    await creation;
    await Promise.all(workers.map((each) => each.stop(10_000)));

    const found = (await completed()).map((job) => job.returnvalue);
    expect(found.reduce((sum, { agents }) => sum + agents, 0)).toBe(injected.agents);
    expect(found.reduce((sum, { drift }) => sum + drift, 0)).toBe(injected.drift);
    for (const { checked } of found) expect(checked).toBe(100_000);
    expect(created).toBeGreaterThan(50);
    expect(created / seconds).toBeGreaterThan(45);
    expect(await wrongAgents(db)).toBe(0);
    expect(await idleAccounts(db)).toBe(0); // which each run sees to besides

    // A run's id is its period, which BullMQ holds only once; no other runs were made.
    const ids = (await runs()).map((job) => job.id as string);
    expect(new Set(ids).size).toBe(ids.length);
    for (const id of ids) expect(id).toMatch(/^repeat:session-counts:\d+000$/);
    const periods = new Set((await completed()).map((job) => job.processedOn! - job.delay));
    expect(periods.size).toBe(found.length);
  });

  it('are brought back when the queue has lost them, and go when they are switched off', async () => {
    const { queue } = held;
    const on = await start({ ANNALS_SESSION_COUNTS_SCHEDULE: '0 3 * * *' });
    await until(
      async () => (await queue.getJobScheduler('session-counts'))?.pattern === '0 3 * * *',
    );
    await queue.obliterate({ force: true });
    await until(async () => (await queue.getJobScheduler('session-counts')) !== undefined);
    const [next] = await queue.getDelayed();
    // The period is the last part of a run's id; its timestamp and delay are of different moments.
    expect(new Date(Number(next!.id!.split(':').at(-1))).toISOString()).toMatch(/T03:00:00.000Z$/);
    await on.stop(10_000);

    const off = await start({ ANNALS_SESSION_COUNTS_SCHEDULE: 'off' });
    await until(async () => (await queue.getJobScheduler('session-counts')) === undefined);
    expect(await queue.getDelayedCount()).toBe(0);
    await off.stop(10_000);
  });

  it('leave a run that is overdue in its place, for whoever comes next', async () => {
    const { queue } = held;
    await ensureScheduler(queue, 'session-counts', EVERY_SECOND);
    const [first] = await queue.getDelayed();
    await until(() => Date.now() > first!.timestamp + first!.delay + 1000);
    await ensureScheduler(queue, 'session-counts', EVERY_SECOND);
    expect((await runs()).map(({ id }) => id)).toEqual([first!.id]);
    await queue.obliterate({ force: true });
  });
});

describeBackends('a scheduled recount whose worker is killed in the middle of it', (locate) => {
  const { held, start } = useQueue(locate);

  it('is completed by the next worker', async () => {
    const { db, location, queue } = held;
    await addAgents(db, 5000);
    await db.sql(`UPDATE "AI_Agent" SET "totalSessions" = 5`);
    // Somebody holds an agent of the third chunk of five.
    const holder = new pg.Client({ connectionString: db.url });
    await holder.connect();
    await holder.query('BEGIN');
    await holder.query(
      `SELECT FROM "AI_Agent" WHERE "id" =
         (SELECT "id" FROM "AI_Agent" ORDER BY "id" OFFSET 2500 LIMIT 1) FOR UPDATE`,
    );
    const victim = spawnTsx('test/support/schedulesMain.ts', [JSON.stringify(location)], {
      DATABASE_URL: db.url,
      ANNALS_SESSION_COUNTS_SCHEDULE: EVERY_SECOND,
      ANNALS_JOB_LOCK_MS: '1000',
    });
    const waiting = `SELECT FROM pg_stat_activity
      WHERE datname = current_database() AND application_name = 'annals schedules' AND wait_event_type = 'Lock'`;
    await until(async () => (await db.sql(waiting)).length > 0);
    // On a busy machine its lock may have expired, and the job be on its way to another worker.
    const [job] = await queue.getJobs(['active', 'waiting']);
    victim.kill('SIGKILL');
    await once(victim, 'exit');
    await holder.query('COMMIT');
    await holder.end();
    expect(await wrongAgents(db)).toBe(3000);

    const next = await start({ ANNALS_SESSION_COUNTS_SCHEDULE: EVERY_SECOND });
    await until(async () => (await queue.getJobState(job!.id!)) === 'completed');
    expect(await wrongAgents(db)).toBe(0);
    // What the killed worker had healed, and told, is in what the run says that it did. The rest it
    // healed itself, or the run of the next second was before it.
    const found = (await queue.getJobs(['completed'])).map((each) => each.returnvalue);
    expect(found.reduce((sum, { agents }) => sum + agents, 0)).toBe(5000);
    expect(found.reduce((sum, { drift }) => sum + drift, 0)).toBe(25_000);
    expect((await queue.getJob(job!.id!))?.returnvalue.checked).toBe(5000);
    await next.stop(10_000);
  });
});
