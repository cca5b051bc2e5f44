import { existsSync, mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';

import type { DeadLetter } from '../src/deadLetters/deadLetter.ts';
import { discardDeadLetters } from '../src/deadLetters/discard.ts';
import { readDeadLetters, type DeadLetterFilter } from '../src/deadLetters/read.ts';
import { trimDeadLetters } from '../src/deadLetters/trim.ts';
import { readLedger } from '../src/ledger/ledger.ts';
import { createLogger } from '../src/logger.ts';
import { openProducerQueue, openTaskQueue, type QueueLocation } from '../src/queues/backend.ts';
import type { EventKind } from '../src/queues/catalogue.ts';
import { startSchedules } from '../src/schedules/runner.ts';
import { startWorkers, type Workers } from '../src/workers/runtime.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { addIdleAccount, idleAccounts, sample } from './support/events.ts';
import { removeFolder } from './support/files.ts';
import {
  describeBackends,
  drained,
  openQueues,
  seedParents,
  testConfig,
  testProducer,
} from './support/pipeline.ts';
import { run } from './support/process.ts';

describeBackends('dead letters', (locate) => {
  let db: TestDatabase;
  let location: QueueLocation;
  let workers: Workers;
  let queues: ReturnType<typeof openQueues>;
  let folder: string;
  const logged: string[] = [];

  beforeAll(async () => {
    db = await createTestDatabase();
    await seedParents(db);
    location = locate(db);
    const config = testConfig({ ANNALS_JOB_ATTEMPTS: '2' });
    const log = pino({ level: 'warn' }, { write: (line: string) => logged.push(line) });
    workers = await startWorkers({ databaseUrl: db.url, queue: location, config, log });
    queues = openQueues(location);
    folder = mkdtempSync(join(tmpdir(), 'annals-letters-'));
  });
  afterAll(async () => {
    await workers.stop(10_000);
    await queues.close();
    await db.drop();
    removeFolder(folder);
  });
  afterEach(async () => {
    for await (const { job } of readDeadLetters(queues, { filter: {} })) await job.remove();
  });

  const annals = (...args: string[]) =>
    run(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', ...args], {
      timeoutMs: 60_000,
      env: {
        DATABASE_URL: db.url,
        REDIS_URL: location.kind === 'redis' ? location.url : undefined,
        ANNALS_QUEUE_BACKEND: location.kind,
        ANNALS_QUEUE_PREFIX: location.prefix,
        ANNALS_DATA_DIR: join(folder, 'data'),
        ANNALS_SPOOL_DIR: join(folder, 'spool'),
        ANNALS_LOG_LEVEL: 'info',
      },
    });
  const letters = (...args: string[]) => annals('dead-letters', ...args);

  /** Puts a job on the queue as a foreign producer does, and waits until it is done with. */
  async function put(kind: EventKind, events: unknown[], envelope: object = {}): Promise<void> {
    const queue = openProducerQueue(location, kind);
    await queue.add(kind, JSON.stringify({ v: 1, ...envelope, events }));
    await queue.close();
    await drained(queues);
  }

  async function found(filter: DeadLetterFilter, limit?: number): Promise<DeadLetter[]> {
    const letters: DeadLetter[] = [];
    const read = { filter, ...(limit !== undefined && { limit }) };
    for await (const letter of readDeadLetters(queues, read)) letters.push(letter);
    return letters;
  }

  it(
    'come back exactly once when the cause is mended, however often they are retried',
    { timeout: 120_000 },
    async () => {
      const producer = testProducer(location, { env: { ANNALS_PACK_MAX_WAIT_MS: '50' } });
      const lost = [0, 1, 2].map((n) => ({ ...sample('memory-access', n), memoryId: 'late' }));
      for (const event of [...lost, sample('memory-access', 9)]) {
        producer.emit('memory-access', event as never);
      }
      await producer.close();
      await drained(queues);

      const inVain = ['not stored yet; tried again later', 'dead letter after 2 attempts'];
      const said = () => logged.map((line) => JSON.parse(line).msg);
      await expect.poll(said, { timeout: 20_000 }).toEqual(inVain);

      const listed = await letters('list');
      expect(listed).toMatchObject({ code: 0 });
      expect(listed.stdout).toMatch(/memory-access\/\d+ {2}3 events {2}2 attempts {2}\d{4}-/);
      expect(listed.stdout).toContain('memoryId: unknown id "late"');
      const shown = await letters('show', '--json', '--reason', 'UNKNOWN ID "late"');
      const [one] = shown.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
      expect(one).toMatchObject({ kind: 'memory-access', attempts: 2, eventCount: 3 });
      expect(one.events).toEqual(
        lost.map((event) => ({ event, reason: 'memoryId: unknown id "late"' })),
      );

      const gone = await letters('show', '--id', one.id, '--id', 'memory-access/no-such');
      expect(gone).toMatchObject({ code: 1, stdout: expect.stringContaining(one.id) });
      expect(gone.stdout).toContain(
        'Not there, or not meant by the other options: memory-access/no-such',
      );
      expect(await letters('show', '--id', one.id)).toMatchObject({ code: 0 });

      // As long as its parent is unknown, it waits for it as a new one does.
      expect(JSON.parse((await letters('retry', '--json')).stdout)).toMatchObject({ retried: 1 });
      await expect.poll(said, { timeout: 20_000 }).toEqual([...inVain, ...inVain]);

      await db.sql(
        `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt")
       VALUES ('late', 'user', 'agent', 'fact', '{}', 0.5, now())`,
      );
      const both = await Promise.all([letters('retry', '--json'), letters('retry', '--json')]);
      expect(both.map(({ code }) => code)).toEqual([0, 0]);
      const retried = both.map(({ stdout }) => JSON.parse(stdout).retried as number);
      expect(retried[0]! + retried[1]!).toBe(1);
      await drained(queues);
      const again = await letters('retry', '--id', one.id);
      expect(again).toMatchObject({ code: 0, stderr: '' });
      expect(again.stdout).toContain('There are no such dead letters.');

      // Delivered once more from where a producer kept them, they change nothing either.
      await put('memory-access', lost);
      expect(
        await db.sql(
          `SELECT "accessCount" AS counted, (SELECT count(*)::int FROM "MemoryAccess" WHERE "memoryId" = 'late') AS stored
         FROM "InteractionMemory" WHERE "id" = 'late'`,
        ),
      ).toEqual([{ counted: 3, stored: 3 }]);
      const entries = (await readLedger(db.prisma)).filter(({ kind }) => kind === 'memory-access');
      expect(entries.reduce((sum, { committed }) => sum + committed, 0)).toBe(4);
    },
  );

  it('are exported, mended, emitted again and discarded', { timeout: 120_000 }, async () => {
    const wrong = { ...sample('metrics', 1), metricValue: 'high' };
    const producer = { id: '7c1b0d6e-5a57-4c55-9d7e-0f6f7f0c1d2a', accepted: 3, dropped: 0 };
    await put('metrics', [wrong, ['no event'], { ...sample('metrics', 2), kind: 'x' }], {
      producer,
    });
    const file = join(folder, 'metrics.ndjson');
    const exported = await letters('export', '--kind', 'metrics', '--output', file);
    expect(exported).toMatchObject({ code: 0, stderr: '' });
    expect(exported.stdout).toContain('Exported 1 dead letter (3 events)');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const lines = readFileSync(file, 'utf8').trim().split('\n');
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      { kind: 'metrics', ...wrong },
      { kind: 'metrics', event: ['no event'] },
      { kind: 'metrics', event: { ...sample('metrics', 2), kind: 'x' } },
    ]);
    const [onStdout, overwritten, unconfirmed] = await Promise.all([
      letters('export'),
      letters('export', '--output', file),
      letters('discard'),
    ]);
    expect(onStdout.stdout.trim().split('\n')).toEqual(lines);
    expect(overwritten).toMatchObject({ code: 2, stderr: expect.stringContaining('EEXIST') });
    expect(unconfirmed).toMatchObject({ code: 2, stderr: expect.stringContaining('--yes') });

    writeFileSync(file, lines[0]!.replace('"high"', '5'));
    expect(await annals('emit', file)).toMatchObject({ code: 0 });
    await drained(queues);
    expect(await db.sql(`SELECT "metricValue" AS v FROM "AgentMetric"`)).toEqual([{ v: 5 }]);

    expect((await letters('discard', '--yes', '--json')).stdout).toBe(
      `${JSON.stringify({ discarded: 1, events: 3 })}\n`,
    );
    expect((await letters('discard', '--yes')).stdout).toContain('There are no such dead letters.');
    expect(await readLedger(db.prisma)).toContainEqual(
      expect.objectContaining({ producerId: producer.id, discarded: 3, accepted: 3, committed: 0 }),
    );
    expect(existsSync(join(folder, 'data'))).toBe(false); // nothing was embedded
  });

  it('are counted once, however many discard them at once', async () => {
    const producer = { id: '0e0a2f0c-3a0f-4d0e-8a35-2d6c8f3f5f11', accepted: 1, dropped: 0 };
    await put('metrics', [['no event']], { producer });
    const both = await found({ kind: 'metrics' });
    const gone = await Promise.all(
      Array.from({ length: 8 }, () => discardDeadLetters(db.prisma, queues, both)),
    );
    expect(gone.flat()).not.toEqual([]); // Redis tells each of them that it was the one
    const entries = (await readLedger(db.prisma)).filter((one) => one.producerId === producer.id);
    expect(entries).toMatchObject([{ discarded: 1, accepted: 1 }]);
  });

  it('beyond what is kept are discarded and counted, the oldest first', async () => {
    const producer = { id: '5c1d7a6e-0d5b-4f0e-9a44-7b0d2f9f6a21', accepted: 6, dropped: 0 };
    for (let n = 0; n < 3; n++) await put('metrics', [[`old ${n}`], [n]], { producer });
    const discarded = async () =>
      (await readLedger(db.prisma)).find(({ producerId }) => producerId === producer.id)?.discarded;
    const ageMs = 60_000;

    expect(await trimDeadLetters(db.prisma, queues, { kept: { jobs: 3, ageMs } })).toEqual({
      jobs: 0,
      events: 0,
    });
    expect(await trimDeadLetters(db.prisma, queues, { kept: { jobs: 2, ageMs } })).toEqual({
      jobs: 1,
      events: 2,
    });
    const left = await found({});
    expect(left.map(({ events }) => events[0]?.event)).toEqual([['old 2'], ['old 1']]);
    expect(await discarded()).toBe(2);

    const [youngest] = left;
    const age = Date.now() - Number(youngest!.failedAt);
    const sofar = { jobs: 1, events: 2 };
    const options = { kept: { jobs: 3, ageMs: age - 1 }, resume: sofar };
    expect(await trimDeadLetters(db.prisma, queues, options)).toEqual({ jobs: 3, events: 6 });
    expect(await found({})).toEqual([]);
    expect(await discarded()).toBe(6);
  });

  it('are looked through by a schedule, which keeps those that may stay', async () => {
    await put('metrics', [['kept']]);
    await addIdleAccount(db);
    const config = testConfig({ ANNALS_DEAD_LETTERS_SCHEDULE: '* * * * * *' });
    const log = createLogger(config);
    const runs = openTaskQueue(location, 'dead-letters');
    const schedules = await startSchedules({ databaseUrl: db.url, queue: location, config, log });
    try {
      await expect
        .poll(async () => (await runs.getCompleted()).map(({ returnvalue }) => returnvalue))
        .toContainEqual({ jobs: 0, events: 0, tookMs: expect.any(Number) });
      expect(await found({})).toHaveLength(1);
      expect(await idleAccounts(db)).toBe(0); // it sees to these besides
    } finally {
      await schedules.stop(5000);
      await runs.close();
    }
  });

  it('are found by kind, reason, time, id and number, the newest first', async () => {
    for (let n = 0; n < 12; n++) {
      await put('memory-access', [{ ...sample('memory-access', n), memoryId: `nobody-${n}` }]);
      if (n % 4 === 0) await put('transition', [{ ...sample('transition', n), colour: n }]);
    }
    const all = await found({});
    expect(all).toHaveLength(15);
    const times = all.map(({ failedAt }) => failedAt.getTime());
    expect(times).toEqual(times.toSorted((a, b) => b - a));
    expect(await found({}, 4)).toEqual(
      all.slice(0, 4).map(({ id }) => expect.objectContaining({ id })),
    );

    const ids = (some: DeadLetter[]) => some.map(({ id }) => id);
    const transitions = await found({ kind: 'transition' });
    expect(transitions).toHaveLength(3);
    expect(ids(await found({ reason: 'COLOUR: is not a field' }))).toEqual(ids(transitions));
    expect(ids(await found({ reason: '"nobody-7"' }))).toHaveLength(1);
    const [first, second, third] = all.toReversed();
    const until = await found({ until: second!.failedAt });
    expect(until.every(({ failedAt }) => failedAt <= second!.failedAt)).toBe(true);
    expect(ids(until)).toEqual(expect.arrayContaining([first!.id, second!.id]));
    const since = await found({ since: third!.failedAt });
    expect(since.length + until.length).toBeGreaterThanOrEqual(all.length);
    expect(since.every(({ failedAt }) => failedAt >= third!.failedAt)).toBe(true);
    expect(ids(await found({ ids: [first!.id, 'metrics/1', 'transition/none'] }))).toEqual([
      first!.id,
    ]);
    const [, number] = transitions[0]!.id.split('/');
    expect(ids(await found({ ids: [number!], kind: 'transition' }))).toEqual([transitions[0]!.id]);
  });
});

it('a wrong filter is said to be wrong, each part of it', async () => {
  const { code, stderr } = await run(
    process.execPath,
    ['--import', 'tsx', 'src/cli/main.ts', 'dead-letters', 'list'].concat(
      ['--kind', 'memories', '--limit', '-1'],
      ['--since', 'yesterday', '--until', '5'],
    ),
    { timeoutMs: 60_000 },
  );
  expect(code).toBe(2);
  for (const text of [
    '--kind: got memories; takes one of memory-access, transition',
    '--limit: got -1; takes a whole number',
    '--since: got yesterday; takes a time such as',
    '--until: got 5; takes a time such as',
  ]) {
    expect(stderr).toContain(text);
  }
});
