import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';

import { openProducerQueue, type QueueLocation } from '../src/queues/backend.ts';
import type { Workers } from '../src/workers/runtime.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { eventId, forgetEvents, sample } from './support/events.ts';
import {
  describeBackends,
  drained,
  openQueues,
  seedParents,
  testProducer,
  testWorkers,
} from './support/pipeline.ts';

const EVENTS = 1000;
const POISONED = 617;

const CLEAN = sample('memory-access', POISONED);
const withField = (field: string, json: string) =>
  JSON.stringify({ ...CLEAN, [field]: 'POISON' }).replace('"POISON"', () => json);

/** What is wrong, the event as JSON, and the field that its dead letter names; null: it is stored. */
const POISONS: [what: string, json: string, field: string | null][] = [
  ['a wrong type', withField('memoryId', '42'), 'memoryId'],
  ['U+0000', withField('context', String.raw`"a\u0000b"`), null],
  ['a lone surrogate', withField('context', String.raw`"a\ud800b"`), null],
  ['an over-long number', withField('usefulness', '1'.repeat(400)), 'usefulness'],
  ['an unknown parent', withField('memoryId', '"nobody"'), 'memoryId'],
  ['a value out of range', withField('usefulness', '1.01'), 'usefulness'],
];

describeBackends('one poisoned event among 1,000', (locate) => {
  let db: TestDatabase;
  let location: QueueLocation;
  let workers: Workers;
  let queues: ReturnType<typeof openQueues>;

  beforeAll(async () => {
    db = await createTestDatabase();
    await seedParents(db);
    location = locate(db);
    workers = await testWorkers(db, location, { ANNALS_JOB_ATTEMPTS: '2' });
    queues = openQueues(location);
  });

  afterAll(async () => {
    await workers.stop(10_000);
    await queues.close();
    await db.drop();
  });

  beforeEach(() => forgetEvents(db));

  it.for(POISONS)('%s', async ([, poison, field]) => {
    const before = workers.stats()['memory-access'].statements;
    const texts = Array.from({ length: EVENTS }, (_, n) =>
      n === POISONED ? poison : JSON.stringify(sample('memory-access', n)),
    );
    let jobId: string | undefined;
    if (field === null && location.kind === 'postgres') {
      // These queues take no text that PostgreSQL cannot store: the producer has to replace it.
      const producer = testProducer(location, { env: { ANNALS_PACK_MAX_EVENTS: '1000' } });
      for (const text of texts) producer.emit('memory-access', JSON.parse(text));
      await producer.close();
      expect(producer.stats().replaced).toBe(1);
    } else {
      const queue = openProducerQueue(location, 'memory-access');
      const job = await queue.add('memory-access', `{"v":1,"events":[${texts.join(',')}]}`);
      jobId = job.id;
      await queue.close();
    }
    await drained(queues);

    const [row] = await db.sql('SELECT count(*)::int AS n FROM "MemoryAccess"');
    const finished = jobId === undefined ? undefined : await queues['memory-access'].getJob(jobId);
    if (field === null) {
      expect(row.n).toBe(EVENTS);
      const [stored] = await db.sql('SELECT "context" FROM "MemoryAccess" WHERE "id" = $1', [
        eventId(POISONED, 1),
      ]);
      expect(stored.context).toBe('a\ufffdb');
      if (finished) expect(await finished.getState()).toBe('completed');
    } else {
      expect(row.n).toBe(EVENTS - 1);
      expect(await finished?.getState()).toBe('failed');
      expect(finished?.data.events).toMatchObject([{ id: CLEAN['id'] }]);
      expect(finished?.failedReason).toContain(`${field}: `);
    }
    expect(workers.stats()['memory-access'].statements - before).toBeLessThanOrEqual(1 + 20);
    if (field === 'usefulness') {
      // Retried as it is, it is refused again: what was wrong with it is still in it.
      await finished?.retry();
      await drained(queues);
      const again = await queues['memory-access'].getJob(jobId!);
      expect(again?.failedReason).toContain('usefulness: ');
    }
    const [counters] = await db.sql('SELECT sum("accessCount")::int AS n FROM "InteractionMemory"');
    expect(counters.n).toBe(row.n);
  });
});
