import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { readLedger } from '../src/ledger/ledger.ts';
import { EVENT_KINDS } from '../src/queues/events.ts';
import type { QueueLocation } from '../src/queues/backend.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { deadlocks, sample } from './support/events.ts';
import {
  describeBackends,
  drained,
  openQueues,
  seedParents,
  testProducer,
  testWorkers,
} from './support/pipeline.ts';
import { spawnTsx } from './support/process.ts';

const EVENTS = 50_000;
const KILLS = 20;

describeBackends(`a worker killed ${KILLS} times over ${EVENTS} events`, (locate) => {
  let db: TestDatabase;
  let queueDb: TestDatabase;
  let location: QueueLocation;
  let queues: ReturnType<typeof openQueues>;

  beforeAll(async () => {
    db = await createTestDatabase();
    await seedParents(db, 3);
    // BullMQ's own tables have their own database, so that the deadlocks counted here are ours.
    queueDb = await createTestDatabase();
    location = locate(queueDb);
    const producer = testProducer(location, { env: { ANNALS_PACK_MAX_EVENTS: '100' } });
    for (let n = 0; n < EVENTS; n++) {
      const kind = EVENT_KINDS[n % EVENT_KINDS.length]!;
      producer.emit(kind, sample(kind, n, n % 3600) as never);
    }
    await producer.close({ deadlineMs: 60_000 });
    expect(producer.stats()).toMatchObject({ delivered: EVENTS, dropped: 0 });
    queues = openQueues(location);
  });

  afterAll(async () => {
    await queues.close();
    await Promise.all([db.drop(), queueDb.drop()]);
  });

  it('loses and doubles nothing', { timeout: 180_000 }, async () => {
    let interrupted = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      const worker = spawnTsx('test/support/workerMain.ts', [JSON.stringify(location)], {
        DATABASE_URL: db.url,
        ANNALS_JOB_LOCK_MS: '1000',
        ANNALS_WORKER_CONCURRENCY: '4',
        ANNALS_BATCH_MAX_ROWS: '250',
        ANNALS_LOG_LEVEL: 'debug',
        ANNALS_LOG_FORMAT: 'json',
      });
      // It says when a batch is written, and goes on with the next one at once.
      for await (const text of worker.stderr) if (String(text).includes('batch written')) break;
      await sleep(Math.random() * 25);
      worker.kill('SIGKILL');
      await once(worker, 'exit');
      const active = await Promise.all(EVENT_KINDS.map((kind) => queues[kind].getActiveCount()));
      if (active.some((count) => count > 0)) interrupted++;
    }
    expect(interrupted, 'kills that hit a worker at work').toBeGreaterThanOrEqual(KILLS * 0.75);

    const workers = await testWorkers(db, location, { ANNALS_JOB_LOCK_MS: '1000' });
    await drained(queues, 120_000);
    await workers.stop(10_000);

    const counts = await db.sql(`
      SELECT (SELECT count(*)::int FROM "MemoryAccess") AS accesses,
        (SELECT sum("accessCount")::int FROM "InteractionMemory") AS counted,
        (SELECT count(*)::int FROM "InteractionMemory" m WHERE "accessCount" <>
          (SELECT count(*) FROM "MemoryAccess" a WHERE a."memoryId" = m."id")) AS miscounted,
        (SELECT count(*)::int FROM "StateTransition") AS transitions,
        (SELECT count(*)::int FROM "SessionMetric") + (SELECT count(*)::int FROM "AgentMetric") AS metrics,
        (SELECT count(*)::int FROM "SessionEvent") AS events`);
    const quarter = EVENTS / 4;
    expect(counts[0]).toEqual({
      accesses: quarter,
      counted: quarter,
      miscounted: 0,
      transitions: quarter,
      metrics: quarter,
      events: quarter,
    });
    const counted = await readLedger(db.prisma);
    const committed = Object.fromEntries(counted.map((entry) => [entry.kind, entry.committed]));
    expect(committed).toEqual(Object.fromEntries(EVENT_KINDS.map((kind) => [kind, quarter])));
    const failed = await Promise.all(EVENT_KINDS.map((kind) => queues[kind].getFailed()));
    expect(failed.flat().map(({ failedReason }) => failedReason)).toEqual([]);
    expect(await deadlocks(db)).toBe(0);
  });
});
