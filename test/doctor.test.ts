import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Redis } from 'ioredis';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { Finding } from '../src/doctor/finding.ts';
import { checkConfiguration, checkNode } from '../src/doctor/machine.ts';
import { checkMigrations } from '../src/doctor/postgres.ts';
import { createTestDatabase, describeRedis, type TestDatabase } from './support/database.ts';
import { createEmptyDatabase } from './support/emptyDatabase.ts';
import { removeFolder } from './support/files.ts';
import { testConfig } from './support/pipeline.ts';
import { run } from './support/process.ts';
import { startPostgres, startRedis, type TestServer } from './support/servers.ts';

let folder: string;
let db: TestDatabase;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'annals-doctor-'));
  db = await createTestDatabase();
});
afterAll(async () => {
  await db.drop();
  removeFolder(folder);
});

async function doctor(
  env: Record<string, string | undefined>,
  { flags = ['--json'], preload = [] as string[] } = {},
) {
  const imports = ['tsx', ...preload].flatMap((each) => ['--import', each]);
  const { code, stdout, stderr } = await run(
    process.execPath,
    [...imports, 'src/cli/main.ts', 'doctor', ...flags],
    {
      env: {
        DATABASE_URL: db.url,
        REDIS_URL: undefined,
        ANNALS_QUEUE_BACKEND: 'postgres',
        ANNALS_DATA_DIR: join(folder, 'data'),
        ANNALS_SPOOL_DIR: join(folder, 'spool'),
        ANNALS_LOG_LEVEL: 'info',
        ...env,
      },
      timeoutMs: 60_000,
    },
  );
  const report = flags.includes('--json')
    ? (JSON.parse(stdout) as { ok: boolean; findings: Finding[] })
    : { ok: code === 0, findings: [] };
  return {
    code,
    stdout,
    stderr,
    ok: report.ok,
    /** What is not as it should be, by the check's name. */
    complaints: Object.fromEntries(
      report.findings
        .filter(({ status }) => status === 'warning' || status === 'failed')
        .map(({ check, status, found, advice }) => [check, `${status}: ${found} → ${advice}`]),
    ),
    statusOf: (check: string) => report.findings.find((each) => each.check === check)?.status,
  };
}

describe('annals doctor', () => {
  it('says how to use it', async () => {
    const { stdout } = await doctor({}, { flags: ['--help'] });
    for (const text of ['Examples:', '--json', 'Exits with 1']) expect(stdout).toContain(text);
  });

  it('finds every fault of the configuration', async () => {
    const { code, ok, complaints } = await doctor({
      ANNALS_JOB_ATTEMPTS: '0',
      DATABASE_URL: 'mysql://u:secret@host/db',
    });
    expect({ code, ok }).toEqual({ code: 1, ok: false });
    expect(complaints['configuration']).toMatch(/^failed: .*DATABASE_URL: got a value \(hidden\)/s);
    expect(complaints['configuration']).toContain('ANNALS_JOB_ATTEMPTS: got "0"');
  });

  it('finds a board that would not start', () => {
    const config = testConfig({ ANNALS_BOARD_HOST: '0.0.0.0', ANNALS_LOG_LEVEL: 'info' });
    const queue = { kind: 'redis', url: 'redis://localhost', prefix: 'annals' } as const;
    expect(checkConfiguration({ config, queue, databaseUrl: '' })).toMatchObject({
      status: 'warning',
      found: expect.stringContaining('ANNALS_BOARD_HOST: got "0.0.0.0"'),
    });
  });

  it('tells servers that do not answer, and looks at the rest', async () => {
    const { code, complaints, statusOf, stdout } = await doctor({
      DATABASE_URL: 'postgresql://u:secret@127.0.0.1:1/db',
      REDIS_URL: 'redis://u:secret@127.0.0.1:1',
      ANNALS_QUEUE_BACKEND: 'redis',
    });
    expect(code).toBe(1);
    expect(complaints['PostgreSQL']).toMatch(
      /^failed: 127\.0\.0\.1:1\/db: .*ECONNREFUSED.* → .*DATABASE_URL/,
    );
    expect(complaints['Redis']).toMatch(/^failed: 127\.0\.0\.1:1: .*ECONNREFUSED.* → .*REDIS_URL/);
    expect(statusOf('migrations')).toBe('skipped');
    expect(statusOf('Redis eviction')).toBe('skipped');
    expect(statusOf('spool folder')).toBe('ok');
    expect(statusOf('data folder')).toBe('skipped');
    expect(stdout).not.toContain('secret');
  });

  it('knows a folder that cannot be written, and servers that nobody uses', async () => {
    writeFileSync(join(folder, 'file'), '');
    const { code, complaints } = await doctor({
      ANNALS_SPOOL_DIR: join(folder, 'file/spool'),
      REDIS_URL: 'redis://127.0.0.1:1',
    });
    expect(code).toBe(1);
    expect(complaints['spool folder']).toMatch(/^failed: .*file\/spool cannot be written/);
    expect(complaints['configuration']).toMatch(/^warning: REDIS_URL is set, and ANNALS_QUEUE/);
  });

  it('compares clocks', async () => {
    const late = (ms: number) => `data:text/javascript,const now=Date.now;Date.now=()=>now()+${ms}`;
    const slight = await doctor({}, { preload: [late(5000)] });
    expect(slight.complaints['clocks']).toMatch(/^warning: PostgreSQL −\d{4} ms .*network time/);
    const grave = await doctor({}, { preload: [late(-90_000)] });
    expect(grave.complaints['clocks']).toMatch(/^failed: PostgreSQL \+(89|90)\d{3} ms/);
    expect(grave.code).toBe(1);
  });

  it('tells what migrations are missing', async () => {
    const empty = await createEmptyDatabase();
    const before = await doctor({ DATABASE_URL: empty.url });
    expect(before.complaints['migrations']).toMatch(/^warning: the database is empty/);
    await empty.sql('CREATE TABLE "AI_Agent" ()');
    const plain = await doctor({ DATABASE_URL: empty.url });
    expect(plain.complaints['migrations']).toMatch(
      /^failed: \d+ pending.*annals migrate --baseline/,
    );
    // The embedded database, too, may have been given plain tables by somebody.
    const client = new pg.Client({ connectionString: empty.url });
    await client.connect();
    const embedded = { config: testConfig(), databaseUrl: empty.url };
    expect(await checkMigrations(client, embedded as never)).toMatchObject({
      status: 'failed',
      advice: expect.stringContaining('annals migrate --baseline'),
    });
    await client.end();
    await empty.sql('DROP TABLE "AI_Agent"');
    await empty.drop();
  });

  it('knows a Node.js that is too old', () => {
    expect(checkNode('20.18.1').status).toBe('failed');
    expect(checkNode('18.20.0').status).toBe('failed');
    expect(checkNode('20.19.0').status).toBe('ok');
    expect(checkNode('22.0.0').status).toBe('ok');
  });
});

describe('annals doctor on a PostgreSQL', () => {
  let postgres: TestServer;
  let client: pg.Client;
  beforeAll(async () => {
    postgres = await startPostgres();
    client = new pg.Client({ connectionString: postgres.url });
    await client.connect();
  });
  afterAll(async () => {
    await client.end();
    await postgres.stop();
  });

  const set = async (settings: Record<string, string>) => {
    for (const [name, value] of Object.entries(settings)) {
      await client.query(`ALTER ROLE postgres SET ${name} = '${value}'`);
    }
  };
  beforeEach(() => client.query('ALTER ROLE postgres RESET ALL'));

  it('finds nothing wrong with the embedded one', async () => {
    const { code, ok, complaints, statusOf } = await doctor({ DATABASE_URL: postgres.url });
    expect(complaints).toEqual({ migrations: expect.stringContaining('the database is empty') });
    expect({ code, ok }).toEqual({ code: 0, ok: true });
    expect(statusOf('Redis')).toBe('skipped');
  });

  it('knows a role that does not see what would hold a backfill', async () => {
    await client.query(`CREATE ROLE "some app" LOGIN PASSWORD 'app'`);
    const url = Object.assign(new URL(postgres.url), { username: 'some app', password: 'app' });
    const blind = await doctor({ DATABASE_URL: url.href });
    expect(blind.complaints['PostgreSQL monitoring']).toMatch(
      /^warning: .*a backfill is held .* → GRANT pg_monitor TO "some app";$/,
    );
    await client.query('GRANT pg_monitor TO "some app"');
    expect((await doctor({ DATABASE_URL: url.href })).statusOf('PostgreSQL monitoring')).toBe('ok');
  });

  it('finds what would lose rows or stop work', async () => {
    await set({
      synchronous_commit: 'off',
      statement_timeout: '2s',
      default_transaction_read_only: 'on',
    });
    const { code, complaints } = await doctor({
      DATABASE_URL: postgres.url,
      ANNALS_DATABASE_POOL_SIZE: '200',
    });
    expect(code).toBe(1);
    expect(complaints['PostgreSQL durability']).toMatch(
      /^failed: .*synchronous_commit=off.* → ALTER ROLE/,
    );
    expect(complaints['PostgreSQL takes writes']).toMatch(/^failed: .*read-only/);
    expect(complaints['PostgreSQL time-outs']).toMatch(/^warning: statement_timeout=2000 ms/);
    expect(complaints['PostgreSQL connections']).toMatch(
      /^warning: \d+ of \d+ free; a worker opens 273 at most → Raise max_connections/,
    );
  });

  it('finds a server that a crash destroys', async () => {
    // The server that all tests share is thrown away in the end.
    const { complaints } = await doctor({});
    expect(complaints['PostgreSQL durability']).toMatch(/^failed: fsync=off.* → ALTER SYSTEM/);
  });

  it('is read by people too', async () => {
    await set({ statement_timeout: '2s' });
    const { stdout } = await doctor({ DATABASE_URL: postgres.url }, { flags: [] });
    expect(stdout).toMatch(/^ok +PostgreSQL version +\d+/m);
    expect(stdout).toMatch(/^warning +PostgreSQL time-outs .*\n +→ ALTER ROLE/m);
    expect(stdout).toMatch(/\n0 failed, 2 warnings\n$/);
  });
});

describeRedis('annals doctor on a Redis', () => {
  let redis: TestServer;
  let client: Redis;
  beforeAll(async () => {
    redis = await startRedis();
    client = new Redis(redis.url);
  });
  afterAll(async () => {
    client.disconnect();
    await redis.stop();
  });

  const look = async () => {
    const { complaints, statusOf } = await doctor({
      REDIS_URL: redis.url,
      ANNALS_QUEUE_BACKEND: 'redis',
    });
    const ofRedis = Object.entries(complaints).filter(([check]) => check.startsWith('Redis'));
    return { complaints: Object.fromEntries(ofRedis), statusOf };
  };

  it('finds nothing wrong with the private one', async () => {
    const { complaints, statusOf } = await look();
    expect(complaints).toEqual({});
    expect(statusOf('Redis persistence')).toBe('ok');
    expect(statusOf('clocks')).toBe('ok');
  });

  it('finds what would lose events', async () => {
    await client.config('SET', 'maxmemory-policy', 'allkeys-lru');
    await client.config('SET', 'appendonly', 'no');
    await client.config('SET', 'save', '3600 1');
    const risky = await look();
    expect(risky.complaints).toEqual({
      'Redis eviction': expect.stringMatching(/^warning: .*allkeys-lru.* → CONFIG SET maxmemory/),
      'Redis persistence': expect.stringMatching(/^warning: snapshots only \(save 3600 1\)/),
    });
    await client.config('SET', 'maxmemory', '100mb');
    await client.config('SET', 'save', '');
    const lossy = await look();
    expect(lossy.complaints).toEqual({
      'Redis eviction': expect.stringMatching(/^failed: .*drops queued events/),
      'Redis persistence': expect.stringMatching(/^failed: none: .* → CONFIG SET appendonly yes/),
    });
  });

  it('looks as far as it is allowed to, and at what the server is', async () => {
    await client.config('SET', 'maxmemory-policy', 'noeviction');
    // Made by the server itself: what a client sends takes room for a while as well.
    await client.eval(`redis.call('SET', 'filler', string.rep('x', 10000000))`, 0);
    const [, used] = /^used_memory:(\d+)/m.exec(await client.info('memory')) ?? [];
    await client.config('SET', 'maxmemory', Math.round(Number(used) * 1.1));
    await client.call('ACL', 'SETUSER', 'default', '-config');
    await client.call('REPLICAOF', '127.0.0.1', '1');
    const { complaints } = await look();
    expect(complaints).toEqual({
      'Redis role': expect.stringMatching(/^failed: the server is a replica/),
      'Redis eviction': expect.stringMatching(/^warning: noeviction, and \d+ % of maxmemory/),
      'Redis persistence': expect.stringMatching(/^warning: .*CONFIG is forbidden/),
    });
  });
});
