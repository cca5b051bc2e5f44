import { Redis } from 'ioredis';
import pino from 'pino';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';

import { start } from '../src/backfill/runs.ts';
import { startBackfillWorker } from '../src/backfill/worker.ts';
import { prepareQueues, type QueueLocation } from '../src/queues/backend.ts';
import { startWorkers } from '../src/workers/runtime.ts';
import { logTotals } from '../src/workers/totals.ts';
import { createFixture, seedPlain, SESSIONS, type Fixture } from './backfill/fixture.ts';
import { describeRedis, redisUrl, testPrefix } from './support/database.ts';
import { sample } from './support/events.ts';
import { drained, openQueues, seedParents, testConfig } from './support/pipeline.ts';

interface Line {
  msg: string;
  queue?: string;
  job?: string;
  reason?: string;
  [field: string]: unknown;
}

/** A log at debug, as a worker writes it. */
const lines: Line[] = [];
const log = pino(
  { level: 'debug' },
  { write: (text: string) => void lines.push(JSON.parse(text) as Line) },
);
const saying = (msg: string) => lines.filter((line) => line.msg === msg);
afterEach(() => void lines.splice(0));

let db: Fixture;
beforeAll(async () => {
  db = await createFixture();
  await seedParents(db);
});
afterAll(() => db.drop());

const inPostgres = (): QueueLocation => ({ kind: 'postgres', url: db.url, prefix: testPrefix() });
const work = (queue: QueueLocation) =>
  startWorkers({ databaseUrl: db.url, queue, config: testConfig(), log });

it('names queue and job of each batch, and how many jobs it joins', async () => {
  const location = inPostgres();
  await prepareQueues(location);
  const queues = openQueues(location);
  const jobs = await queues.metrics.addBulk(
    Array.from({ length: 5 }, (_, n) => ({
      name: 'metrics',
      data: { v: 1 as const, events: [sample('metrics', n)] },
    })),
  );
  const workers = await work(location);
  await drained(queues);
  const batches = saying('batch written');
  expect(batches.reduce((sum, batch) => sum + Number(batch['jobs']), 0)).toBe(5);
  for (const { queue, job } of batches) {
    expect(queue).toBe('metrics');
    expect(jobs.map(({ id }) => id)).toContain(job);
  }

  // The totals: a line for the queue that did something, and none while nothing is done.
  const end = logTotals(workers, log, 20);
  await expect.poll(() => saying('totals')).toHaveLength(1);
  expect(saying('totals')[0]).toMatchObject({ queue: 'metrics', inserted: 5, duplicates: 0 });
  await queues.transition.add('transition', { v: 1, events: [sample('transition', 0)] } as never);
  const last = () => saying('totals').at(-1);
  await expect.poll(last).toMatchObject({ queue: 'transition', inserted: 1 });
  expect(saying('totals').filter(({ queue }) => queue === 'metrics')).toHaveLength(1);
  end();
  await workers.stop(5000);
  await queues.close();
});

it('names queue and job of each chunk of a backfill', async () => {
  await seedPlain(db, 50);
  const worker = await startBackfillWorker({ databaseUrl: db.url, queue: inPostgres(), log });
  await start(db.pool, SESSIONS, {});
  await worker.look();
  await db.finished([SESSIONS]);
  await worker.stop(5000);
  const chunks = [...saying('chunk committed'), ...saying('lane done')];
  expect(chunks.length).toBeGreaterThan(1);
  for (const line of chunks) {
    expect(line).toMatchObject({ queue: 'backfill', job: expect.stringMatching(/./) });
  }
});

describeRedis('a job that is not JSON', () => {
  it('is a dead letter whose reason, in the log too, quotes nothing of it', async () => {
    const location = { kind: 'redis' as const, url: redisUrl(), prefix: testPrefix() };
    const queues = openQueues(location);
    const redis = new Redis(location.url);
    const spoilt = ['my secret', '{"text": secret}', '{"a":1 secret', '{"secret'];
    for (const data of spoilt) {
      const job = await queues.transition.add('transition', {} as never);
      await redis.hset(`${location.prefix}:transition:${job.id}`, 'data', data);
    }
    const workers = await work(location);
    await drained(queues);
    const reasons = lines.flatMap(({ job, reason }) => (job && reason ? [reason] : []));
    expect(reasons).toHaveLength(spoilt.length);
    for (const reason of reasons)
      expect(reason).toMatch(/^the job's data is not JSON( at position \d+)?$/);
    expect(reasons.join()).toContain('at position');
    const failed = await queues.transition.getFailed();
    expect(failed.map(({ failedReason }) => failedReason).sort()).toEqual(reasons.sort());
    expect(JSON.stringify(lines)).not.toContain('secret');
    await workers.stop(5000);
    redis.disconnect();
    await queues.close();
  });
});
