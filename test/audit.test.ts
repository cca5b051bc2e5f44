import { randomUUID } from 'node:crypto';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { audit } from '../src/audit/audit.ts';
import { discardDeadLetters } from '../src/deadLetters/discard.ts';
import { readDeadLetters } from '../src/deadLetters/read.ts';
import { retryDeadLetter } from '../src/deadLetters/retry.ts';
import { closeIdleAccounts } from '../src/ledger/closed.ts';
import { readLedger } from '../src/ledger/ledger.ts';
import { spoolFolder } from '../src/producers/spool/destination.ts';
import { openProducerQueue, prepareQueues, type QueueLocation } from '../src/queues/backend.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { forgetEvents, sample } from './support/events.ts';
import { removeFolder } from './support/files.ts';
import {
  describeBackends,
  drained,
  openQueues,
  seedParents,
  testConfig,
  testProducer,
  testWorkers,
} from './support/pipeline.ts';
import { run } from './support/process.ts';

describeBackends('the audit', (locate) => {
  let db: TestDatabase;
  let location: QueueLocation;
  let queues: ReturnType<typeof openQueues>;
  let env: Record<string, string | undefined>;
  let folder: string;

  beforeAll(async () => {
    db = await createTestDatabase();
    await seedParents(db);
    location = locate(db);
    await prepareQueues(location);
    queues = openQueues(location);
    folder = mkdtempSync(join(tmpdir(), 'annals-audit-'));
    env = {
      DATABASE_URL: db.url,
      REDIS_URL: location.kind === 'redis' ? location.url : undefined,
      ANNALS_QUEUE_BACKEND: location.kind,
      ANNALS_QUEUE_PREFIX: location.prefix,
      ANNALS_DATA_DIR: join(folder, 'data'),
      ANNALS_SPOOL_DIR: join(folder, 'spool'),
    };
  });
  afterAll(async () => {
    await queues.close();
    await db.drop();
    removeFolder(folder);
  });

  const annals = (...args: string[]) =>
    run(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', ...args], {
      env,
      timeoutMs: 60_000,
    });
  const report = () =>
    audit({
      prisma: db.prisma,
      queues,
      spools: [spoolFolder(testConfig(env as Record<string, string>), location)],
      patienceMs: 200,
      signal: new AbortController().signal,
      onJob: () => {},
    });

  /** Emits with a producer of its own, into 5 events a job. */
  async function emit(events: object[]): Promise<void> {
    const producer = testProducer(location, { env: { ANNALS_PACK_MAX_EVENTS: '5' } });
    for (const event of events) producer.emit('memory-access', event as never);
    await producer.close();
  }
  const accesses = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, n) => sample('memory-access', from + n));

  it(
    'finds every event wherever it is, and says how many are nowhere',
    { timeout: 120_000 },
    async () => {
      await emit([
        ...accesses(0, 40),
        { ...sample('memory-access', 40), memoryId: 'nobody' },
        sample('memory-access', 3), // the caller emits an id again
      ]);
      expect(await report()).toMatchObject({
        ok: true,
        kinds: { 'memory-access': { accepted: 42, queued: 42, committed: 0, unaccounted: 0 } },
      });

      const workers = await testWorkers(db, location, { ANNALS_JOB_ATTEMPTS: '1' });
      await drained(queues);
      const settled = { accepted: 42, committed: 40, repeated: 1, queued: 0, unaccounted: 0 };
      expect(await report()).toMatchObject({
        ok: true,
        missing: 0,
        kinds: { 'memory-access': { ...settled, deadLetters: 1, discarded: 0, copies: 0 } },
      });

      // A job that comes again, as it does when a worker dies between its commit and its answer.
      const [entry] = await readLedger(db.prisma);
      const producer = { id: entry!.producerId, accepted: 42, dropped: 0 };
      const queue = openProducerQueue(location, 'memory-access');
      const envelope = { v: 1, producer, events: accesses(0, 10) };
      await queue.add('memory-access', JSON.stringify(envelope));
      // And one of somebody who keeps no account.
      await queue.add('memory-access', JSON.stringify({ v: 1, events: accesses(50, 57) }));
      await drained(queues);
      for await (const letter of readDeadLetters(queues, { filter: {} })) {
        expect(await discardDeadLetters(db.prisma, queues, [letter])).toEqual([letter]);
      }
      const shown = await annals('audit');
      expect(shown).toMatchObject({ code: 0 });
      expect(shown.stdout).toMatch(/^accepted +42 +0 +0 +0 +42$/m);
      expect(shown.stdout).toMatch(/^discarded +1 +0 +0 +0 +1$/m);
      expect(shown.stdout).toContain('10 copies were delivered more than once, and ignored.');
      expect(shown.stdout).toContain('7 events besides, of producers that do not say');
      expect(shown.stdout).toContain('Every event is accounted for.');

      // A job that is lost: a producer at work tells that it had been accepted.
      const lossy = { id: randomUUID(), accepted: 20, dropped: 2 };
      await queue.add(
        'memory-access',
        JSON.stringify({ v: 1, producer: lossy, events: accesses(60, 65) }),
      );
      await drained(queues);
      const missing = await annals('audit', '--wait', '0.2', '--json');
      expect(missing.code).toBe(1);
      expect(JSON.parse(missing.stdout)).toMatchObject({
        ok: false,
        missing: 13,
        kinds: { 'memory-access': { accepted: 62, dropped: 2, unaccounted: 13, copies: 10 } },
      });
      await queue.close();
      await workers.stop(10_000);
    },
  );

  it('knows what is in the spool', async () => {
    await forgetEvents(db);
    const config = testConfig({ ...(env as Record<string, string>), ANNALS_SPOOL_AFTER_MS: '10' });
    const producer = testProducer(
      { kind: 'redis', url: 'redis://127.0.0.1:1', prefix: 'nobody' },
      { config, spoolFolder: spoolFolder(config, location) },
    );
    for (const event of accesses(0, 30)) producer.emit('memory-access', event as never);
    await producer.close({ deadlineMs: 100 });
    expect(producer.stats()).toMatchObject({ spooled: 30 });
    expect(await report()).toMatchObject({
      ok: true,
      kinds: { 'memory-access': { accepted: 30, spooled: 30, committed: 0 } },
    });
  });

  it('finds every event of a producer whose account is closed, wherever it is', async () => {
    await forgetEvents(db);
    const close = async () => {
      await db.sql(`UPDATE "EventLedger" SET "updatedAt" = "updatedAt" - interval '200 days'
        WHERE "updatedAt" < now() AT TIME ZONE 'utc' + interval '1 day'`);
      await closeIdleAccounts(db.prisma);
      expect(await db.sql('SELECT FROM "EventLedger"')).toEqual([]);
    };
    const counted = async (): Promise<object> => {
      const { ok, kinds } = await report();
      return { ok, ...kinds['memory-access'] };
    };
    const spooled = (await counted()) as { accepted: number; spooled: number };
    const workers = await testWorkers(db, location, { ANNALS_JOB_ATTEMPTS: '1' });
    await emit([
      ...accesses(0, 8),
      { ...sample('memory-access', 8), memoryId: 'late' },
      sample('memory-access', 3), // an id again, which must not stand for what is a dead letter
    ]);
    await drained(queues);
    const expected = {
      ok: true,
      accepted: spooled.accepted + 10,
      spooled: spooled.spooled,
      committed: 8,
      deadLetters: 1,
      repeated: 1,
      copies: 0,
      unaccounted: 0,
      seenTwice: 0,
    };
    expect(await counted()).toMatchObject(expected);
    await close();
    expect(await counted()).toMatchObject(expected);

    await db.sql(
      `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt")
       VALUES ('late', 'user', 'agent', 'fact', '{}', 0.5, now())`,
    );
    for await (const letter of readDeadLetters(queues, { filter: {} })) {
      expect(await retryDeadLetter(letter)).toBe(true);
    }
    await drained(queues);
    const done = { ...expected, committed: 9, deadLetters: 0 };
    expect(await counted()).toMatchObject(done);
    await close();
    expect(await counted()).toMatchObject(done);

    // Another, which is given up.
    await emit([{ ...sample('memory-access', 9), memoryId: 'nobody' }]);
    await drained(queues);
    await close();
    for await (const letter of readDeadLetters(queues, { filter: {} })) {
      await discardDeadLetters(db.prisma, queues, [letter]);
    }
    const discarded = { ...done, accepted: done.accepted + 1, discarded: 1 };
    expect(await counted()).toMatchObject(discarded);
    await close();
    expect(await counted()).toMatchObject(discarded);
    await workers.stop(10_000);
  });
});
