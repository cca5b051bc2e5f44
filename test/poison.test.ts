import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';

import { openProducerQueue, prepareQueues, type QueueLocation } from '../src/queues/backend.ts';
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

it("what a trigger of the database's owner raises is a verdict on the event, not an outage", async () => {
  const db = await createTestDatabase();
  const location: QueueLocation = { kind: 'postgres', url: db.url, prefix: 'annals' };
  await seedParents(db);
  await db.sql(`CREATE FUNCTION choosy() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF NEW."context" = ''no'' THEN RAISE EXCEPTION ''not that one''; END IF; RETURN NEW; END'`);
  await db.sql(`CREATE TRIGGER choosy BEFORE INSERT ON "MemoryAccess"
    FOR EACH ROW EXECUTE FUNCTION choosy()`);
  const workers = await testWorkers(db, location);
  const producer = testProducer(location);
  for (let n = 0; n < 20; n++) {
    const event = { ...sample('memory-access', n), ...(n === 7 && { context: 'no' }) };
    producer.emit('memory-access', event as never);
  }
  await producer.close();
  await expect.poll(() => workers.stats()['memory-access'].inserted).toBe(19);
  await expect.poll(() => workers.stats()['memory-access'].refused).toBe(1);
  const reason = async () =>
    (await db.sql(`SELECT failed_reason AS reason FROM annals.job WHERE state = 'failed'`))[0]
      ?.reason;
  await expect.poll(reason).toContain('not that one');
  await workers.stop(10_000);
  await db.drop();
});

it('a batch that PostgreSQL has no time for is halved until it has', async () => {
  const db = await createTestDatabase();
  const location: QueueLocation = { kind: 'postgres', url: db.url, prefix: 'annals' };
  await seedParents(db);
  await db.sql(`CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END'`);
  await db.sql(`CREATE TRIGGER slow BEFORE INSERT ON "MemoryAccess"
    FOR EACH ROW EXECUTE FUNCTION slow()`);
  const name = new URL(db.url).pathname.slice(1);
  await db.sql(`ALTER DATABASE "${name}" SET statement_timeout = '500ms'`);
  const workers = await testWorkers(db, location);
  const producer = testProducer(location, { env: { ANNALS_PACK_MAX_EVENTS: '100' } });
  for (let n = 0; n < 100; n++) {
    producer.emit('memory-access', sample('memory-access', n) as never); // 2 s in one statement
  }
  await producer.close();
  const stored = async () => {
    const [row] = await db.sql('SELECT count(*)::int AS n FROM "MemoryAccess"');
    return row.n;
  };
  await expect.poll(stored).toBe(100);
  expect(workers.stats()['memory-access']).toMatchObject({ inserted: 100, refused: 0 });
  await workers.stop(10_000);
  await db.drop();
});

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

describeBackends('events that somebody else wrote', (locate) => {
  it('are stored however they are written', async () => {
    const db = await createTestDatabase();
    await seedParents(db);
    const location = locate(db);
    const events = Array.from({ length: 6 }, (_, n) =>
      JSON.stringify({ ...sample('session-event', n), sequence: n, duration: 10 }),
    );
    const [plain = '', float = '', exponent = '', hidden = '', last = '', spaced = ''] = events;
    const texts = [
      `{"v":1,"events":[${plain}]}`,
      `{"v":1,"events":[${float.replace('"sequence":1,', '"sequence":1.0,')}]}`,
      `{"v":1,"events":[${exponent.replace('"duration":10', '"duration":1e1')}]}`,
      `{"v":1,"events":[${hidden}],"events":[${last}]}`, // which is what JSON takes the last for
      `{"v":1,"events":[${JSON.stringify(JSON.parse(spaced), null, 2)}]}`,
    ];
    expect(texts[1]).toContain('1.0');
    expect(texts[2]).toContain('1e1');
    await prepareQueues(location);
    const queue = openProducerQueue(location, 'session-event');
    // Before there is a worker, so that all are written together.
    for (const text of texts) await queue.add('session-event', text);
    await queue.close();
    const queues = openQueues(location);
    const workers = await testWorkers(db, location);
    await drained(queues);
    expect(
      await db.sql('SELECT "sequence", "duration" FROM "SessionEvent" ORDER BY "sequence"'),
    ).toEqual([0, 1, 2, 4, 5].map((sequence) => ({ sequence, duration: 10 })));
    expect(workers.stats()['session-event']).toMatchObject({ inserted: 5, refused: 0 });
    expect(await queues['session-event'].getFailedCount()).toBe(0);
    await queues.close();
    await workers.stop(10_000);
    await db.drop();
  });
});
