import { setTimeout as sleep } from 'node:timers/promises';

import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { applyMigrations } from '../src/database/migrations.ts';
import type { Producer } from '../src/producers/producer.ts';
import type { QueueLocation } from '../src/queues/backend.ts';
import type { Workers } from '../src/workers/runtime.ts';
import { describeRedis, redisUrl, testPrefix } from './support/database.ts';
import { sample } from './support/events.ts';
import { drained, openQueues, seedParents, testProducer, testWorkers } from './support/pipeline.ts';
import { startPostgres, type TestServer } from './support/servers.ts';

const EVENTS = 4000;

describeRedis('PostgreSQL away while workers are at work', () => {
  let server: TestServer;
  let location: QueueLocation;
  let workers: Workers;
  let producer: Producer;
  let queues: ReturnType<typeof openQueues>;

  const sql = async <Row extends pg.QueryResultRow>(text: string, params?: unknown[]) => {
    const client = new pg.Client({ connectionString: server.url });
    await client.connect();
    try {
      return (await client.query<Row>(text, params)).rows;
    } finally {
      await client.end();
    }
  };
  const emit = (from: number, to: number) => {
    for (let n = from; n < to; n++)
      producer.emit('memory-access', sample('memory-access', n) as never);
    return producer.flush();
  };

  beforeAll(async () => {
    server = await startPostgres();
    await applyMigrations(server.url);
    await seedParents({ sql });
    location = { kind: 'redis', url: redisUrl(), prefix: testPrefix() };
    workers = await testWorkers({ url: server.url }, location);
    producer = testProducer(location, { env: { ANNALS_PACK_MAX_EVENTS: '50' } });
    queues = openQueues(location);
  });

  afterAll(async () => {
    await producer.close();
    await workers.stop(5000);
    await queues.close();
    await server.stop();
  });

  it('waits, burns no attempt and goes on within 5 s of its return', async () => {
    await emit(0, EVENTS / 2);
    await server.kill();
    await emit(EVENTS / 2, EVENTS);
    await sleep(3000);
    const counts = await queues['memory-access'].getJobCounts('failed', 'delayed');
    expect(counts).toEqual({ failed: 0, delayed: 0 });
    const held = await queues['memory-access'].getActive();
    expect(held.length).toBeGreaterThan(0);
    expect(held.every((job) => job.attemptsMade === 0)).toBe(true);

    await server.restart();
    const backAt = Date.now();
    await drained(queues);
    expect(Date.now() - backAt).toBeLessThan(5000);
    const [row] = await sql(`SELECT (SELECT count(*)::int FROM "MemoryAccess") AS rows,
      (SELECT sum("accessCount")::int FROM "InteractionMemory") AS counted`);
    expect(row).toEqual({ rows: EVENTS, counted: EVENTS });
  });

  it('stops within the deadline while it is away, and hands its jobs to the next worker', async () => {
    await server.kill();
    await emit(EVENTS, EVENTS + 500);
    await sleep(500);
    const stoppedAt = Date.now();
    await workers.stop(1000);
    expect(Date.now() - stoppedAt).toBeLessThan(2000);

    await server.restart();
    expect(await queues['memory-access'].getActiveCount()).toBe(0);
    workers = await testWorkers({ url: server.url }, location);
    await drained(queues, 5000);
    const [row] = await sql('SELECT count(*)::int AS n FROM "MemoryAccess"');
    expect(row).toEqual({ n: EVENTS + 500 });
    expect(await queues['memory-access'].getFailedCount()).toBe(0);
  });
});
