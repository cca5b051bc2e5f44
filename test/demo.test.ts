import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  utimesSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { audit, type Findings, type Query } from '../src/demo/audit.ts';
import { folderPrefix, removeLeftovers } from '../src/demo/leftovers.ts';
import { mergeClaims, type Claim } from '../src/demo/ledger.ts';
import { liveClock, Plan, recentClock } from '../src/demo/plan.ts';
import type { Report } from '../src/demo/report.ts';
import { Simulation } from '../src/demo/simulation.ts';
import { takeLease } from '../src/embedded/lease.ts';
import { EVENT_KINDS } from '../src/queues/catalogue.ts';
import { isAlive } from '../src/embedded/orphan.ts';
import { EnhancedSchemaService } from '../src/services/enhancedSchemaService.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { removeFolder } from './support/files.ts';
import { drained, openQueues, testProducer, testWorkers } from './support/pipeline.ts';
import { run, spawnTsx } from './support/process.ts';
import { onPath } from './support/programs.ts';

/** Seconds on a machine with nothing else to do, and on a busy one still no hang. */
const DEMO_MS = 120_000;

describe('npm run demo', { timeout: DEMO_MS + 10_000 }, () => {
  let folder: string;
  beforeAll(() => (folder = mkdtempSync(join(tmpdir(), 'annals-test-'))));
  afterAll(() => removeFolder(folder));

  const nothingConfigured = {
    DATABASE_URL: undefined,
    REDIS_URL: undefined,
    ANNALS_QUEUE_BACKEND: undefined,
  };

  /** Neither a process nor the folder that the demo said it keeps its data in. */
  function expectNothingLeft(stdout: string): void {
    const dataDir = /data in (\S+annals-demo-\w+)/.exec(stdout)?.[1] as string;
    expect(dataDir).toBeDefined();
    expect(existsSync(dataDir)).toBe(false);
    const processes = execFileSync('ps', ['-A', '-ww', '-o', 'args='], { encoding: 'utf8' });
    expect(processes.split('\n').filter((line) => line.includes(dataDir))).toEqual([]);
  }

  async function demo(name: string, env: Record<string, string | undefined>, ...options: string[]) {
    const file = join(folder, `${name}.json`);
    const args = ['run', 'demo', '--', '--events', '3000', '--report', file, ...options];
    const { code, stdout, stderr } = await run('npm', args, { env, timeoutMs: DEMO_MS });
    expect(code, stdout + stderr).toBe(0);
    expectNothingLeft(stdout);
    const report = JSON.parse(readFileSync(file, 'utf8')) as Report;
    for (const check of report.checks) expect(check).toMatchObject({ ok: true });
    const { queueBackend, duplicates, eventsPerSecond, checks } = report;
    expect(report).toEqual({
      ok: true,
      queueBackend,
      database: 'embedded',
      emitted: 3000 + duplicates,
      committed: 3000,
      duplicates,
      deadLetters: 0,
      lost: 0,
      eventsPerSecond,
      checks,
    });
    expect(duplicates).toBeGreaterThan(0);
    expect(eventsPerSecond).toBeGreaterThan(0);
    return { report, stdout };
  }

  it('proves the promises with nothing configured, and leaves nothing behind', async () => {
    const { report, stdout } = await demo('plain', nothingConfigured);
    expect(report.queueBackend).toBe(onPath('redis-server') ? 'redis' : 'postgres');
    expect(stdout).toMatch(/PostgreSQL: embedded .*; queues: /);
    expect(stdout).toMatch(/3,000 committed/);
    expect(stdout).toMatch(/MemoryAccess rows +1,350 +1,350 {2}✓/);
    expect(stdout).toContain('Nothing lost, nothing twice');
  });

  it('shows itself on a board, whose metrics equal the tables', async () => {
    const { report, stdout } = await demo(
      'board',
      { ...nothingConfigured, ANNALS_BOARD_PORT: '0' },
      '--board',
    );
    expect(stdout).toMatch(/^board: http:\/\/127\.0\.0\.1:\d+$/m);
    const told = report.checks.filter(({ name }) => name.startsWith('/metrics '));
    expect(told.map(({ name }) => name)).toEqual(
      ['committed', 'accepted', 'duplicates', 'dropped', 'dead letters'].flatMap((figure) =>
        EVENT_KINDS.map((kind) => `/metrics ${figure}, ${kind}`),
      ),
    );
    expect(told.filter(({ ok }) => !ok)).toEqual([]);
  });

  it('does so without redis-server, too', async () => {
    const bin = mkdtempSync(join(folder, 'bin-'));
    for (const program of ['node', 'npm', 'sh']) symlinkSync(onPath(program)!, join(bin, program));
    const { report } = await demo('without-redis', { ...nothingConfigured, PATH: bin });
    expect(report.queueBackend).toBe('postgres');
  });

  it('stops everything when it is interrupted', async () => {
    const child = spawnTsx(
      'src/demo/main.ts',
      ['--events', '1000000', '--runtimes', '1'],
      nothingConfigured,
    );
    let stdout = '';
    let interrupted = false;
    child.stdout.on('data', (text: Buffer) => {
      stdout += text.toString();
      if (interrupted || !/[1-9][\d,]* emitted/.test(stdout)) return;
      interrupted = child.kill('SIGINT');
    });
    const code = await new Promise((resolve) => child.once('close', resolve));
    expect(code, stdout).toBe(130);
    expectNothingLeft(stdout);
  });

  it('removes what demos left that were killed, and nothing else', async () => {
    const { pid } = spawnSync('true');
    const folderOf = (owner: number) => realpathSync(mkdtempSync(folderPrefix(owner)));
    const [killed, starting, alive, served] = [pid, pid, process.pid, pid].map(folderOf) as [
      string,
      string,
      string,
      string,
    ];
    const lease = await takeLease({ dataDir: served, postgres: false, redis: null, graceMs: 100 });
    try {
      const longAgo = Date.now() / 1000 - 3600;
      for (const path of [killed, alive, served]) utimesSync(path, longAgo, longAgo);
      await removeLeftovers();
      expect([killed, starting, alive, served].map((path) => existsSync(path))).toEqual([
        false,
        true,
        true,
        true,
      ]);
    } finally {
      await lease.close();
      while (isAlive(lease.pids.supervisor)) await sleep(20);
      for (const path of [starting, alive, served]) removeFolder(path);
    }
  });

  it('names the option that is wrong', async () => {
    const args = ['--import', 'tsx', 'src/demo/main.ts', '--events', 'many'];
    const { code, stderr } = await run(process.execPath, args);
    expect(code).toBe(2);
    expect(stderr).toMatch(/--events.*many.*whole number/);
  });
});

describe('the plan', () => {
  const settings = { seed: 7, events: 5000, runtimes: 3 };
  const events = (seed: number) => {
    const plan = new Plan({ ...settings, seed });
    return [0, 1, 9, 24, 1600].map((index) => plan.eventAt({ runtime: 1, index }, String));
  };

  it('makes the same events of the same seed, and others of another', () => {
    expect(events(7)).toEqual(events(7));
    expect(new Set([...events(7), ...events(8)].map(({ event }) => event.id)).size).toBe(10);
  });

  it('is of the past that it was told, and else of a moment that never changes', () => {
    const now = Date.now();
    const recent = new Plan({ ...settings, clock: recentClock(settings, now) });
    for (const index of [0, 1600, 1666]) {
      const { event } = recent.eventAt({ runtime: 1, index }, String);
      expect(event.occurredAt.getTime()).toBeLessThanOrEqual(now);
      expect(event.occurredAt.getTime()).toBeGreaterThan(now - 3000);
    }
    expect(events(7)[0]?.event).toMatchObject({
      id: '01943ad7-acd5-722a-9e49-84995926a3a9',
      occurredAt: new Date('2025-01-06T09:00:00.597Z'),
    });
  });

  it('is lived through where it is live: no event is emitted before it occurs', () => {
    const clock = liveClock(settings, Date.now() - 3000);
    const live = new Plan({ ...settings, clock });
    expect(live.waitMs(0)).toBeLessThanOrEqual(50);
    for (const index of [100, 1600]) {
      const emittedAt = Date.now() + live.waitMs(index);
      const { event } = live.eventAt({ runtime: 1, index }, String);
      expect(emittedAt - event.occurredAt.getTime()).toBeGreaterThanOrEqual(0);
      expect(emittedAt - event.occurredAt.getTime()).toBeLessThanOrEqual(60);
    }
  });

  it('has as many events as it was told', () => {
    const plan = new Plan(settings);
    expect([0, 1, 2].map((runtime) => plan.eventsOf(runtime))).toEqual([1667, 1667, 1666]);
  });
});

describe('the audit', () => {
  let db: TestDatabase;
  let client: pg.Client;
  let claim: Claim;
  let findings: Findings;

  beforeAll(async () => {
    db = await createTestDatabase();
    const queue = { kind: 'postgres', url: db.url, prefix: 'annals' } as const;
    const [workers, producer, queues] = [
      await testWorkers(db, queue),
      testProducer(queue),
      openQueues(queue),
    ];
    EnhancedSchemaService.use(db.prisma);
    const plan = new Plan({ seed: 1, events: 2400, runtimes: 2 });
    claim = mergeClaims(
      await Promise.all(
        [0, 1].map((runtime) =>
          new Simulation({ plan, runtime, producer, prisma: db.prisma }).run(),
        ),
      ),
    );
    await drained(queues);
    findings = { duplicatesIgnored: claim.duplicates, deadLetters: 0, jobsLeft: 0 };
    EnhancedSchemaService.use(undefined);
    await Promise.all([producer.close(), workers.stop(5000), queues.close()]);
    client = new pg.Client({ connectionString: db.url });
    await client.connect();
  });
  afterAll(async () => {
    await client.end();
    await db.drop();
  });

  const failing = async (found = findings) => {
    const query: Query = async (sql, params) => (await client.query(sql, params)).rows;
    const { checks } = await audit(query, claim, found);
    return checks.filter(({ ok }) => !ok).map(({ name }) => name);
  };

  it('finds nothing wrong with what the simulation left', async () => {
    expect(await failing()).toEqual([]);
  });

  it.each([
    [
      'a lost event',
      `DELETE FROM "MemoryAccess" WHERE "id" = (SELECT "id" FROM "MemoryAccess" LIMIT 1)`,
      ['MemoryAccess rows', 'MemoryAccess ids (checksum)', 'memories with all their accesses'],
    ],
    [
      'an event under another id',
      `UPDATE "SessionEvent" SET "id" = gen_random_uuid()
       WHERE "id" = (SELECT "id" FROM "SessionEvent" LIMIT 1)`,
      ['SessionEvent ids (checksum)'],
    ],
    [
      'an access that was counted twice',
      `UPDATE "InteractionMemory" SET "accessCount" = "accessCount" + 1 WHERE "id" = 'memory-0-0'`,
      ['InteractionMemory.accessCount, sum', 'memories whose accessCount is right'],
    ],
    [
      'an access that was counted for the wrong memory',
      `UPDATE "InteractionMemory"
       SET "accessCount" = "accessCount" + CASE "id" WHEN 'memory-0-0' THEN 1 ELSE -1 END
       WHERE "id" IN ('memory-0-0', 'memory-1-0')`,
      ['memories whose accessCount is right'],
    ],
    [
      'an access that was not the latest',
      `UPDATE "InteractionMemory" SET "lastAccessedAt" = "lastAccessedAt" - interval '1 ms'
       WHERE "id" = 'memory-1-0'`,
      ['memories whose lastAccessedAt is right'],
    ],
    [
      'a metric with another value',
      `UPDATE "SessionMetric" SET "metricValue" = "metricValue" + 1
       WHERE "id" = (SELECT "id" FROM "SessionMetric" LIMIT 1)`,
      ['SessionMetric.metricValue, sum'],
    ],
    [
      'an event in the wrong session',
      `UPDATE "SessionEvent" SET "sessionId" = (SELECT "id" FROM "AgentSession" WHERE "sessionId" = 'session-0-1')
       WHERE "id" = (SELECT e."id" FROM "SessionEvent" e JOIN "AgentSession" s ON s."id" = e."sessionId"
         WHERE s."sessionId" = 'session-1-0' LIMIT 1)`,
      ['sessions with all their events'],
    ],
    [
      'a session without its parent',
      `UPDATE "AgentSession" SET "parentSessionId" = NULL WHERE "sessionId" = 'session-0-1'`,
      ['AgentSession children', 'sessions with all their children'],
    ],
    [
      'a session that was not counted',
      `UPDATE "AI_Agent" SET "totalSessions" = "totalSessions" - 1 WHERE "id" = 'agent-1-0'`,
      ['AI_Agent.totalSessions, sum', 'agents whose totalSessions is right'],
    ],
    [
      'a chain of states in two parts',
      `UPDATE "ModuleState" SET "previousStateId" = NULL
       WHERE "id" = (SELECT "id" FROM "ModuleState" WHERE "previousStateId" IS NOT NULL LIMIT 1)`,
      ['modules whose states are one unforked chain'],
    ],
    [
      'a transition that moved to another state',
      `UPDATE "StateTransition" t SET "stateId" = s."id" FROM "ModuleState" s
       WHERE t."id" = (SELECT "id" FROM "StateTransition" LIMIT 1)
         AND s."id" = (SELECT "id" FROM "ModuleState" WHERE "id" <> t."stateId" LIMIT 1)`,
      ['module states with all their transitions'],
    ],
  ])('notices %s', async (_, tampering, expected) => {
    await client.query('BEGIN');
    try {
      const { rowCount } = await client.query(tampering);
      expect(rowCount).toBeGreaterThan(0);
      expect(await failing()).toEqual(expected);
    } finally {
      await client.query('ROLLBACK');
    }
  });

  it('notices what stands in the queues, and a duplicate that nobody met', async () => {
    const found = { duplicatesIgnored: claim.duplicates - 1, deadLetters: 1, jobsLeft: 1 };
    expect(await failing(found)).toEqual([
      'duplicates ignored',
      'dead letters',
      'jobs left in the queues',
    ]);
  });
});
