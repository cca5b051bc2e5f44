import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, inject, it } from 'vitest';

import { CONTESTANT_NAMES } from '../bench/contestants/index.ts';
import { resetTables, verify, writeExpected } from '../bench/ingest/database.ts';
import { eventsOf, type Load } from '../bench/ingest/load.ts';
import { TABLES } from '../bench/ingest/rows.ts';
import { ratio, reportOf } from '../bench/ingest/report.ts';
import type { Turn } from '../bench/ingest/turn.ts';
import { createTestDatabase } from './support/database.ts';
import { removeFolder } from './support/files.ts';
import { run } from './support/process.ts';

const TIMEOUT_MS = 300_000;

const bench = (...args: string[]) =>
  run(process.execPath, ['--import', 'tsx', 'bench/main.ts', ...args], {
    timeoutMs: TIMEOUT_MS - 20_000,
  });

/** What a bench wrote that ended well. */
async function reportOfBench(...args: string[]) {
  const folder = mkdtempSync(join(tmpdir(), 'annals-test-'));
  const file = join(folder, 'report.json');
  const { code, stdout, stderr } = await bench(...args, '--report', file);
  expect(code, stdout + stderr).toBe(0);
  const report = JSON.parse(readFileSync(file, 'utf8'));
  removeFolder(folder);
  return report;
}

// In a small size, and never by their times.
describe('the contestants of the ingest bench', () => {
  const needRedis = ['annals-redis', 'one-job-per-event'];
  const present = CONTESTANT_NAMES.filter(
    (name) => inject('redisUrl') !== null || !needRedis.includes(name),
  );

  it('store the right rows and counters', { timeout: TIMEOUT_MS }, async () => {
    const size = ['--events', '301', '--memories', '20', '--rounds', '1'];
    const report = await reportOfBench('ingest', ...size);
    expect(report).toMatchObject({
      events: 301,
      memories: 20,
      rounds: 1,
      producers: 2,
      warmUp: true,
    });
    expect(report.contestants).toEqual(
      present.map((name) =>
        expect.objectContaining({
          name,
          events: 301,
          eventsPerSecond: expect.any(Number),
          cpuSecondsPerMillion: expect.any(Number),
          peakRssMb: expect.any(Number),
          walBytesPerEvent: expect.any(Number),
          verified: true,
          failures: [],
        }),
      ),
    );
    expect(report.backlog).toEqual(
      present
        .filter((name) => name.startsWith('annals'))
        .map((name) => ({
          name,
          events: 301,
          bytesPerEvent: expect.any(Number),
          logBytesPerEvent: expect.any(Number),
        })),
    );
    for (const { bytesPerEvent } of report.backlog) expect(bytesPerEvent).toBeGreaterThan(100);
  });

  it('are named by the help and by the refusal of another name', async () => {
    const { code, stdout } = await bench('ingest', '--help');
    expect(code).toBe(0);
    expect(stdout.replace(/\s+/g, '')).toContain(CONTESTANT_NAMES.join(','));
    const refusal = await bench('ingest', '--contestants', 'floor,nobody');
    expect(refusal.code).toBe(1);
    expect(refusal.stderr).toContain(CONTESTANT_NAMES.join(', '));
  });
});

describe('the check after a turn', () => {
  it('finds missing, doubled, changed and miscounted rows', async () => {
    const db = await createTestDatabase();
    const load: Load = { events: 101, memories: 7 };
    await writeExpected(db.url, load);
    await resetTables(db.url, load);
    const found = () => verify(db.url, load.events);
    const accesses = [0, 1].flatMap((n) =>
      [...eventsOf(n, load)].filter(({ kind }) => kind === 'memory-access'),
    );
    expect(accesses.length).toBeGreaterThan(7);
    const touched = new Set(accesses.map(({ event }) => 'memoryId' in event && event.memoryId))
      .size;
    expect(await found()).toEqual({
      wrongRows: load.events,
      wrongCounters: touched,
      wrongLastAccess: touched,
    });

    // The right rows, as the database has them.
    const copy = async (table: string) => {
      const columns = await db.sql(
        `SELECT string_agg(quote_ident(column_name), ', ') AS list FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name = $1`,
        [table],
      );
      const { list } = columns[0];
      await db.sql(`INSERT INTO "${table}" (${list}) SELECT ${list} FROM expected."${table}"`);
    };
    for (const table of TABLES) await copy(table);
    await db.sql(
      `UPDATE "InteractionMemory" m SET "accessCount" = a.n, "lastAccessedAt" = a.latest
       FROM (SELECT "memoryId", count(*) AS n, max("occurredAt") AS latest FROM "MemoryAccess" GROUP BY 1) a
       WHERE m."id" = a."memoryId"`,
    );
    expect(await found()).toEqual({ wrongRows: 0, wrongCounters: 0, wrongLastAccess: 0 });

    await db.sql(
      `UPDATE "SessionEvent" SET "sequence" = -1 WHERE "id" = (SELECT min("id"::text)::uuid FROM "SessionEvent")`,
    );
    await db.sql(
      `INSERT INTO "AgentMetric" ("id", "agentId", "metricType", "metricValue")
       SELECT gen_random_uuid(), "agentId", "metricType", "metricValue" FROM "AgentMetric" LIMIT 1`,
    );
    await db.sql(
      `UPDATE "InteractionMemory" SET "accessCount" = "accessCount" + 1 WHERE "id" = 'memory-0'`,
    );
    expect(await found()).toEqual({ wrongRows: 3, wrongCounters: 1, wrongLastAccess: 0 });
    await db.drop();
  });
});

describe('the report', () => {
  const turn = (seconds: number, wrongRows = 0): Turn => ({
    events: 1000,
    seconds,
    cpuSeconds: 0.5,
    postgresCpuSeconds: null,
    redisCpuSeconds: null,
    peakRssMb: { worker: 100, 'producer-0': 80 },
    walBytes: 1000,
    verdict: { wrongRows, wrongCounters: 0, wrongLastAccess: 0 },
  });

  it('gives medians and the spread', () => {
    expect(reportOf('floor', [turn(1), turn(4), turn(2)])).toMatchObject({
      eventsPerSecond: 500,
      spread: [250, 1000],
      cpuSecondsPerMillion: 500,
      peakRssMb: 100,
      verified: true,
    });
  });

  it('shows a contestant that stored wrong rows, or ended, as failed and not as fast', () => {
    const wrong = reportOf('pg-boss', [turn(1), turn(0.01, 3)]);
    expect(wrong).toMatchObject({
      eventsPerSecond: null,
      verified: false,
      failures: ['round 2: 3 wrong rows, 0 wrong counters'],
    });
    expect(reportOf('direct', [new Error('gone')])).toMatchObject({
      eventsPerSecond: null,
      verified: false,
      failures: ['round 1: gone'],
    });
    const reports = [reportOf('floor', [turn(1)]), wrong];
    expect(ratio(reports, 'floor', 'floor')).toBe(1);
    expect(ratio(reports, 'pg-boss', 'floor')).toBeNull();
  });
});

const isQueueHere = (name: string) => inject('redisUrl') !== null || !name.includes('redis');

it('the emit bench measures every caller', { timeout: TIMEOUT_MS }, async () => {
  const report = await reportOfBench('emit', '--calls', '500', '--rounds', '1', '--seconds', '1');
  const names = ['clock', 'array-push', 'annals', 'annals-own-id', 'queue-add'];
  expect(report.contestants).toEqual(
    names
      .filter((name) => inject('redisUrl') !== null || name !== 'queue-add')
      .map((name) => expect.objectContaining({ name, calls: 500, p50Ns: expect.any(Number) })),
  );
  for (const { eventsPerSecond } of report.eventLoop) expect(eventsPerSecond).toBeGreaterThan(0);
});

it('the latency bench sees every event at every rate', { timeout: TIMEOUT_MS }, async () => {
  const args = ['--rates', '2,100', '--rounds', '1', '--seconds', '2'];
  const report = await reportOfBench('latency', ...args);
  const names = ['annals-redis, 2/s', 'annals-redis, 100/s', 'annals-postgres, 2/s'];
  expect(report.contestants).toEqual(
    [...names, 'annals-postgres, 100/s']
      .filter(isQueueHere)
      .map((name) => expect.objectContaining({ name, verified: true, failures: [] })),
  );
  for (const { rate, samples, p50Ms, p99Ms, maxMs } of report.contestants) {
    expect(samples).toBeGreaterThanOrEqual(rate);
    expect(p50Ms).toBeGreaterThan(0);
    expect(p99Ms).toBeGreaterThanOrEqual(p50Ms);
    expect(maxMs).toBeGreaterThanOrEqual(p99Ms);
  }
});

it(
  'the growth bench finds the load among the rows before it',
  { timeout: TIMEOUT_MS },
  async () => {
    const size = ['--events', '301', '--memories', '20', '--rounds', '1', '--sizes', '100,2000'];
    const report = await reportOfBench('growth', ...size);
    expect(report.contestants).toEqual(
      [100, 2000].map((rowsBefore) =>
        expect.objectContaining({ rowsBefore, events: 301, verified: true, failures: [] }),
      ),
    );
    expect(report.ratioLastToFirst).toBeGreaterThan(0);
  },
);

it('the scale bench counts what all workers committed', { timeout: TIMEOUT_MS }, async () => {
  const size = ['--events', '301', '--memories', '20', '--rounds', '1', '--workers', '1,3'];
  const report = await reportOfBench('scale', ...size);
  expect(report.contestants).toEqual(
    ['annals-redis, 1', 'annals-redis, 3', 'annals-postgres, 1', 'annals-postgres, 3']
      .filter(isQueueHere)
      .map((name) => expect.objectContaining({ name, events: 301, verified: true, failures: [] })),
  );
  const crews = report.contestants.map(
    ({ peakRssMbByProcess }: { peakRssMbByProcess: object }) =>
      Object.keys(peakRssMbByProcess).length,
  );
  expect(new Set(crews)).toEqual(new Set([3, 5]));
});
