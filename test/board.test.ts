import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Redis } from 'ioredis';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { startBoard, type Board } from '../src/board/board.ts';
import { DeadLetterReader } from '../src/board/deadLetters.ts';
import type { Config } from '../src/config.ts';
import { createLogger } from '../src/logger.ts';
import { startReporter, type Reporter } from '../src/metrics/reports.ts';
import { createWorkerMetrics } from '../src/metrics/workerMetrics.ts';
import { spoolFolder } from '../src/producers/spool/destination.ts';
import { openTaskQueue, type QueueLocation } from '../src/queues/backend.ts';
import { EVENT_KINDS, TASK_QUEUES } from '../src/queues/catalogue.ts';
import { startWorkers, type Workers } from '../src/workers/runtime.ts';
import { recountSessions } from '../src/services/sessionCounts.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { sample } from './support/events.ts';
import { removeFolder } from './support/files.ts';
import {
  describeBackends,
  drained,
  openQueues,
  seedParents,
  testConfig,
  testProducer,
} from './support/pipeline.ts';

const TABLES = {
  'memory-access': ['MemoryAccess'],
  transition: ['StateTransition'],
  metrics: ['SessionMetric', 'AgentMetric'],
  'session-event': ['SessionEvent'],
} as const;

describeBackends('the board', (locate) => {
  let db: TestDatabase;
  let location: QueueLocation;
  let config: Config;
  let workers: Workers;
  let reporter: Reporter;
  let board: Board;
  let queues: ReturnType<typeof openQueues>;

  beforeAll(async () => {
    db = await createTestDatabase();
    await seedParents(db);
    location = locate(db);
    config = testConfig({
      ANNALS_JOB_ATTEMPTS: '1',
      ANNALS_BOARD_PORT: '0',
      ANNALS_SPOOL_DIR: mkdtempSync(join(tmpdir(), 'annals-board-')),
    });
    const log = createLogger(config);
    const { hooks, snapshot } = createWorkerMetrics('worker:1');
    reporter = startReporter({ databaseUrl: db.url, worker: 'worker:1', snapshot, log });
    workers = await startWorkers({ databaseUrl: db.url, queue: location, config, log, hooks });
    board = await startBoard({ databaseUrl: db.url, queue: location, config, log });
    queues = openQueues(location);
  });

  afterAll(async () => {
    await board.stop(5000);
    await workers.stop(5000);
    await reporter.stop();
    await queues.close();
    await db.drop();
  });

  const get = (path: string, init?: RequestInit) => fetch(`${board.url}${path}`, init);

  /** The value of a series of `/metrics`, or 0 where it has none. */
  const metric = async (name: string, labels: Record<string, string>) => {
    const text = await (await get('/metrics')).text();
    const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
    const lines = text
      .split('\n')
      .filter(
        (line) => /^\w+/.exec(line)?.[0] === name && wanted.every((one) => line.includes(one)),
      );
    return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  };

  it('is ready once it has looked, and says that it lives', async () => {
    await expect.poll(async () => (await get('/readyz')).status).toBe(200);
    expect(await (await get('/readyz')).json()).toEqual({
      status: 'ok',
      checks: { database: 'ok', queue: 'ok', migrations: 'ok', commits: 'ok' },
    });
    expect(await (await get('/healthz')).json()).toEqual({ status: 'ok' });
  });

  it('is not ready, and says why, while its figures cannot be read', async () => {
    const database = async () => {
      const { checks } = (await (await get('/readyz')).json()) as { checks: { database: string } };
      return checks.database;
    };
    await db.sql('ALTER TABLE "EventLedger" RENAME TO "hidden"');
    await expect.poll(database).toMatch(/^figures cannot be read: .*"EventLedger" does not exist/);
    expect((await get('/readyz')).status).toBe(503);
    expect(await metric('annals_up', { part: 'database' })).toBe(0);
    await db.sql('ALTER TABLE "hidden" RENAME TO "EventLedger"');
    await expect.poll(database).toBe('ok');
  });

  it('counts in /metrics what SQL counts, duplicates and dead letters too', async () => {
    const producer = testProducer(location, { env: { ANNALS_PACK_MAX_EVENTS: '7' } });
    for (const kind of EVENT_KINDS) {
      for (let n = 0; n < 100; n++) producer.emit(kind, sample(kind, n % 80) as never);
    }
    producer.memoryAccess({
      memoryId: 'no such memory',
      accessType: 'read',
      accessedBy: 'agent',
      accessorType: 'agent',
    });
    await producer.close();
    await drained(queues);
    await queues.transition.add('foreign', { v: 2 } as never);

    for (const kind of EVENT_KINDS) {
      const counts = TABLES[kind].map((table) => `(SELECT count(*)::int FROM "${table}")`);
      const [row] = await db.sql(`SELECT ${counts.join(' + ')} AS n`);
      expect(row.n).toBe(80);
      const of = (name: string) => metric(name, { kind });
      await expect.poll(() => of('annals_events_committed_total')).toBe(row.n);
      // A pack that was slow to be taken is sent again: duplicates are what they are, at least 20.
      const [{ duplicates }] = await db.sql(
        `SELECT sum("duplicates")::int AS duplicates FROM "EventLedger" WHERE "kind" = $1`,
        [kind],
      );
      expect(duplicates).toBeGreaterThanOrEqual(20);
      await expect.poll(() => of('annals_events_duplicates_total')).toBe(duplicates);
      await expect.poll(() => of('annals_lag_seconds_count')).toBe(80 + duplicates);
      expect(await of('annals_events_accepted_total')).toBe(kind === 'memory-access' ? 101 : 100);
      expect(await of('annals_write_seconds_count')).toBeGreaterThan(0);
      expect(await of('annals_batch_events_sum')).toBeGreaterThanOrEqual(100);
    }
    const dead = (labels: Record<string, string>) =>
      metric('annals_events_dead_lettered_total', labels);
    await expect.poll(() => dead({ cause: 'unknown_reference' })).toBe(1);
    await expect.poll(() => dead({ cause: 'unreadable', kind: 'transition' })).toBe(1);
    const now = (queue: string) => metric('annals_dead_letter_events', { queue });
    await expect.poll(() => now('memory-access'), { timeout: 30_000 }).toBe(1);
    await expect.poll(() => now('transition'), { timeout: 30_000 }).toBe(1);
    await expect
      .poll(() => metric('annals_queue_jobs', { queue: 'memory-access', state: 'dead_letter' }))
      .toBe(1);
    expect(await metric('annals_up', {})).toBe(4);
  });

  it('counts what is in the spool', async () => {
    const folder = join(spoolFolder(config, location), 'producer');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, '00000001.log'), 'x'.repeat(1234));
    await expect.poll(() => metric('annals_spool_bytes', {})).toBe(1234);
    removeFolder(config.ANNALS_SPOOL_DIR);
    await expect.poll(() => metric('annals_spool_bytes', {})).toBe(0);
  });

  it('lists every queue on Bull Board', async () => {
    const { queues } = (await (await get('/queues/api/queues')).json()) as {
      queues: { name: string }[];
    };
    expect(queues.map(({ name }) => name).sort()).toEqual(
      [...EVENT_KINDS, ...Object.keys(TASK_QUEUES)].sort(),
    );
    const page = await get('/queues');
    expect(page.headers.get('content-security-policy')).toContain("script-src 'self'");
    const text = await page.text();
    expect(text).toContain('static/js/main');
    expect(text).not.toContain('https://');
  });

  it('tells the drift that the last recount found', async () => {
    expect(await (await get('/')).text()).toContain('None has run.');
    await db.sql(
      `UPDATE "AI_Agent" SET "totalSessions" = "totalSessions" + 3 WHERE "id" = 'agent'`,
    );
    await recountSessions(db.prisma, { chunkAgents: 1 });
    await expect
      .poll(() => metric('annals_session_counts_drift_sessions', {}), { timeout: 20_000 })
      .toBe(3);
    expect(await metric('annals_session_counts_drifted_agents', {})).toBe(1);
    const finished = await metric('annals_session_counts_finished_timestamp_seconds', {});
    expect(Math.abs(Date.now() / 1000 - finished)).toBeLessThan(60);
    expect((await (await get('/')).text()).replaceAll(/\s+/g, ' ')).toMatch(
      /1 was wrong, by 3 sessions in all, and healed/,
    );
  });

  it('counts all dead letters by reason, and forgets those that are gone', async () => {
    const queue = queues.metrics;
    await queue.addBulk(
      Array.from({ length: 137 }, (_, n) => ({ name: 'foreign', data: { v: n + 2 } as never })),
    );
    await drained(queues);
    const reader = new DeadLetterReader(queue);
    const read = async () => {
      let found = await reader.read();
      while (found.unread > 0) found = await reader.read();
      return found.groups.map(({ count }) => count);
    };
    expect(await read()).toEqual([137]);
    expect(await read()).toEqual([137]);
    for (const job of await queue.getJobs(['failed'], 50, 99)) await job.remove();
    expect(await read()).toEqual([87]);
    await queue.clean(0, 0, 'failed');
    expect(await read()).toEqual([]);
  });

  it('changes nothing where it is to show only', async () => {
    const job = await queues.transition.getJobs(['failed'], 0, 0);
    const config = testConfig({ ANNALS_BOARD_PORT: '0', ANNALS_BOARD_READ_ONLY: 'true' });
    const showing = await startBoard({
      databaseUrl: db.url,
      queue: location,
      config,
      log: createLogger(config),
    });
    await showing.ready;
    const queue = `${showing.url}/queues/api/queues/transition`;
    const change = (path: string) =>
      fetch(`${queue}${path}`, { method: 'PUT', headers: { origin: showing.url } });
    for (const path of ['/pause', '/clean/failed', `/${job[0]?.id}/retry/failed`, '/empty']) {
      expect((await change(path)).status, path).toBe(403);
    }
    expect((await fetch(`${queue}/${job[0]?.id}`)).status).toBe(200);
    expect(await queues.transition.isPaused()).toBe(false);
    expect(await job[0]?.getState()).toBe('failed');
    await showing.stop(5000);
  });

  it('looks at a queue in which a job is not JSON, and shows nothing of the job', async ({
    skip,
  }) => {
    if (location.kind === 'postgres') skip(); // which takes no such job
    const queue = queues.metrics;
    await queue.pause();
    const job = await queue.add('job', { v: 1, events: [] });
    const redis = new Redis(location.url);
    await redis.hset(`${location.prefix}:metrics:${job.id}`, 'data', 'sk-secret 12345');
    redis.disconnect();
    const labels = { queue: 'metrics', state: 'waiting' };
    await expect.poll(() => metric('annals_queue_jobs', labels)).toBe(1);
    const ready = await get('/readyz');
    expect({ status: ready.status, text: await ready.text() }).toEqual({
      status: 200,
      text: expect.not.stringContaining('secret'),
    });
    await queue.remove(String(job.id));
    await queue.resume();
  });

  it('takes changes from its own pages only', async () => {
    const pause = (headers: Record<string, string>) =>
      get('/queues/api/queues/metrics/pause', { method: 'PUT', headers });
    const answer = await pause({ origin: 'https://evil.example' });
    expect(answer.status).toBe(403);
    expect(await queues.metrics.isPaused()).toBe(false);
    expect((await pause({ origin: board.url })).status).toBe(200);
    expect(await queues.metrics.isPaused()).toBe(true);
    await queues.metrics.resume();
  });

  it('shows the depth and the oldest job of a queue that is paused, and does not call it stalled', async () => {
    const queue = queues['session-event'];
    await queue.pause();
    await queue.add('job', { v: 1, events: [sample('session-event', 200)] });
    const labels = { queue: 'session-event' };
    await expect.poll(() => metric('annals_queue_jobs', { ...labels, state: 'waiting' })).toBe(1);
    expect(await metric('annals_queue_paused', labels)).toBe(1);
    const age = (queue: string) => metric('annals_queue_oldest_job_age_seconds', { queue });
    await expect.poll(() => age('session-event')).toBeGreaterThan(1);
    await queue.resume();
    // Backfills give their jobs a priority, and nobody takes them here.
    const prioritized = openTaskQueue(location, 'backfill');
    await prioritized.add('chunk', {}, { priority: 5 });
    await expect.poll(() => age('backfill')).toBeGreaterThan(1);
    await prioritized.drain();
    await prioritized.close();
    await drained(queues);
    expect((await get('/readyz')).status).toBe(200);
  });
});
