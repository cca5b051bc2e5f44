import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { startBoard, type Board } from '../src/board/board.ts';
import type { Config } from '../src/config.ts';
import { createLogger } from '../src/logger.ts';
import { startReporter, type Reporter } from '../src/metrics/reports.ts';
import { createWorkerMetrics } from '../src/metrics/workerMetrics.ts';
import { spoolFolder } from '../src/producers/spool/destination.ts';
import type { QueueLocation } from '../src/queues/backend.ts';
import { EVENT_KINDS, TASK_QUEUES } from '../src/queues/catalogue.ts';
import { startWorkers, type Workers } from '../src/workers/runtime.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { sample } from './support/events.ts';
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
    rmSync(config.ANNALS_SPOOL_DIR, { recursive: true });
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
    expect(await page.text()).toContain('static/js/main');
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
    await expect
      .poll(() => metric('annals_queue_oldest_job_age_seconds', labels))
      .toBeGreaterThan(1);
    await queue.resume();
    await drained(queues);
    expect((await get('/readyz')).status).toBe(200);
  });
});
