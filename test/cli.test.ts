import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import pg from 'pg';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';

import { testPrefix } from './support/database.ts';
import { createEmptyDatabase, type EmptyDatabase } from './support/emptyDatabase.ts';
import { removeFolder } from './support/files.ts';
import { seedParents } from './support/pipeline.ts';
import { ROOT, run, spawnTsx, type RunOptions, type RunResult } from './support/process.ts';

const MAIN = 'src/cli/main.ts';
const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  version: string;
};

let db: EmptyDatabase;
let folder: string;
let env: Record<string, string | undefined>;

beforeAll(async () => {
  db = await createEmptyDatabase();
  folder = mkdtempSync(join(tmpdir(), 'annals-cli-'));
  const redis = inject('redisUrl');
  env = {
    DATABASE_URL: db.url,
    REDIS_URL: redis ?? undefined,
    ANNALS_QUEUE_BACKEND: redis ? 'redis' : 'postgres',
    ANNALS_QUEUE_PREFIX: testPrefix(),
    ANNALS_DATA_DIR: join(folder, 'data'),
    ANNALS_LOG_FORMAT: 'json',
    ANNALS_LOG_LEVEL: 'info',
  };
});

afterAll(async () => {
  await db.drop();
  removeFolder(folder);
});

const annals = (args: string[], options: RunOptions = {}): Promise<RunResult> =>
  run(process.execPath, ['--import', 'tsx', MAIN, ...args], {
    ...options,
    env: { ...env, ...options.env },
  });

/** Starts a command that runs until it is stopped. */
function begin(args: string[], changes: Record<string, string> = {}) {
  const child = spawnTsx(MAIN, args, { ...env, ...changes });
  const running = { child, stdout: '', stderr: '', exited: exitOf(child) };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (running.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (running.stderr += text));
  return running;
}

async function exitOf(child: ChildProcess): Promise<number | null> {
  const [code] = (await once(child, 'exit')) as [number | null];
  return code;
}

async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await sleep(50);
}

describe('annals', () => {
  it.concurrent.each([
    [['--help'], ['worker', 'migrate', 'emit', 'replay', 'Examples:', 'Exit codes:']],
    [
      ['worker', '--help'],
      ['Examples:', 'ANNALS_SHUTDOWN_DEADLINE_MS'],
    ],
    [
      ['emit', '--help'],
      ['Examples:', '--strict'],
    ],
    [
      ['dead-letters', 'discard', '--help'],
      ['Examples:', '--yes', '--since'],
    ],
    [
      ['audit', '--help'],
      ['Examples:', '--wait'],
    ],
    [
      ['replay', '--help'],
      ['Examples:', '--report'],
    ],
    [
      ['migrate', '--help'],
      ['Examples:', '--status'],
    ],
    [
      ['exec', '--help'],
      ['Examples:', 'annals exec psql'],
    ],
    [['--version'], [version]],
  ])('%j prints what there is to know', async (args, texts) => {
    const { code, stdout, stderr } = await annals(args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const text of texts) expect(stdout).toContain(text);
  });

  it.concurrent.each([
    [['wroker'], "unknown command 'wroker'"],
    [['worker', '--fast'], "unknown option '--fast'"],
    [['replay'], "missing required argument 'file'"],
    [['emit', '--kind', 'x'], '--kind: got x; takes one of memory-access'],
    [['emit', 'no-such-file'], 'no-such-file: ENOENT'],
    [['emit', 'src'], 'src is a folder'],
    [['exec'], "missing required argument 'program'"],
    [['exec', 'no-such-program'], 'no-such-program: is not on the PATH'],
    [['replay', 'package.json', '--start', 'soon'], '--start: got soon'],
  ])('%j is wrong usage', async (args, message) => {
    const { code, stdout, stderr } = await annals(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/^ +at /m);
  });

  it('names every fault of the configuration at once', async () => {
    const { code, stderr } = await annals(['worker'], {
      env: { DATABASE_URL: 'mysql://u:secret@host/db', ANNALS_JOB_ATTEMPTS: '0' },
    });
    expect(code).toBe(2);
    expect(stderr).toContain('DATABASE_URL: got a value (hidden); takes a URL beginning with');
    expect(stderr).toContain('ANNALS_JOB_ATTEMPTS: got "0"');
    expect(stderr).not.toContain('secret');
  });

  it('shows where an error came from at level debug only', async () => {
    const unreachable = { DATABASE_URL: 'postgresql://u:secret@127.0.0.1:1/db' };
    const { stderr } = await annals(['migrate', '--status'], {
      env: { ...unreachable, ANNALS_LOG_LEVEL: 'debug' },
    });
    expect(stderr).toMatch(/^ +at /m);
    expect(stderr).not.toContain('secret');
  });

  it.concurrent.each([
    [
      'PostgreSQL',
      ['migrate', '--status'],
      { DATABASE_URL: 'postgresql://u:secret@127.0.0.1:1/db' },
    ],
    [
      'Redis',
      ['dead-letters', 'list'],
      { REDIS_URL: 'redis://u:secret@127.0.0.1:1', ANNALS_QUEUE_BACKEND: 'redis' },
    ],
  ])('fails when %s cannot be reached', async (server, command, unreachable) => {
    const { code, stderr } = await annals(command, { env: unreachable, timeoutMs: 20_000 });
    expect(code).toBe(1);
    expect(stderr).toContain(`${server} at 127.0.0.1:1`);
    expect(stderr).toContain('ECONNREFUSED');
    expect(stderr).not.toMatch(/^ +at |secret/m);
  });

  it('fails in bounded time on a server that takes connections and never answers', async () => {
    const server = createServer(() => {}).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const { code, stderr } = await annals(['migrate', '--status'], {
      env: { DATABASE_URL: `postgresql://u@127.0.0.1:${port}/db` },
      timeoutMs: 20_000,
    });
    server.close();
    expect(code).toBe(1);
    expect(stderr).toContain('does not answer');
  });

  it('goes on when nobody reads its output', async () => {
    const { child, exited } = begin(['--help']);
    child.stdout.destroy();
    expect(await exited).toBe(0);
  });
});

describe('annals migrate', () => {
  it('applies what is pending, and says what is', async () => {
    const before = await annals(['migrate', '--status']);
    expect(before.code).toBe(1);
    expect(before.stdout).toMatch(/\d+ migrations pending:\n {2}20240101000000_legacy_tables/);

    const { code, stdout } = await annals(['migrate', '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout).applied[0]).toBe('20240101000000_legacy_tables');

    const after = await annals(['migrate', '--status', '--json']);
    expect(after.code).toBe(0);
    expect(JSON.parse(after.stdout)).toMatchObject({ isUpToDate: true, pending: [] });
  });

  it('is for the owner of a database in use to run, not for a worker', async () => {
    await db.sql(`DELETE FROM "_prisma_migrations" WHERE "migration_name" LIKE '20240620000%'`);
    const { code, stderr } = await annals(['worker']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^annals: \d+ migrations are pending; run: npx annals migrate$/m);
  });
});

describe('annals migrate, while another process is at it', () => {
  it('waits, and says in plain words what a signal did', async () => {
    const other = new pg.Client({ connectionString: db.url });
    await other.connect();
    await other.query(`SELECT pg_advisory_lock(hashtext('annals_migrations'))`);
    const migrating = begin(['migrate']);
    await until(() => migrating.stderr.includes('waiting for it'));
    migrating.child.kill('SIGINT');
    expect(await migrating.exited).toBe(1);
    expect(migrating.stderr).toContain('annals: SIGINT came before the work was done');
    expect(migrating.stderr).not.toContain('aborted');
    await other.end();
  });
});

describe('annals exec', () => {
  const print = (name: string) => `process.stdout.write(String(process.env.${name}))`;

  it('runs a program that finds the servers, with its own options and exit code', async () => {
    const { username, port } = new URL(db.url);
    const url = await annals(['exec', 'node', '-e', print('DATABASE_URL')]);
    expect(url).toMatchObject({ code: 0, stdout: db.url });
    const libpq = ['PGHOST', 'PGPORT', 'PGUSER'].map(print).join(';');
    expect(await annals(['exec', 'node', '-e', libpq])).toMatchObject({
      stdout: `127.0.0.1${port}${username}`,
    });
    expect(await annals(['exec', 'node', '-e', 'process.exit(7)'])).toMatchObject({ code: 7 });
    expect(await annals(['exec', 'node', '--', '-e', 'process.exit(7)'])).toMatchObject({
      code: 7,
    });
  });
});

describe('annals emit and worker', () => {
  beforeAll(async () => {
    await db.sql('DROP SCHEMA public CASCADE; CREATE SCHEMA public');
  });

  const access = (fields: object) =>
    JSON.stringify({
      memoryId: 'memory-0',
      accessType: 'read',
      accessedBy: 'a',
      accessorType: 'agent',
      ...fields,
    });

  it('writes the right lines, and says which are wrong', async () => {
    const id = '00000000-0000-4000-8000-000000000001';
    const input = Buffer.concat([
      Buffer.from(`\ufeff${access({ kind: 'memory-access', id })}\r\n\r\n{"kind":\n[]\n`),
      Buffer.from(`${access({ kind: 'nonsense' })}\n${access({ usefulness: 'much' })}\n`),
      Buffer.from([0x22, 0xff, 0x22, 0x0a]),
      Buffer.from(`${access({ context: 'x'.repeat(3 * 1024 * 1024) })}\n`),
      Buffer.from(access({ kind: 'memory-access', id: id.replace(/1$/, '2') })),
    ]);
    const file = join(folder, 'events.ndjson');
    writeFileSync(file, input);
    const emitted = await annals(['emit', file, '--json', '--kind', 'memory-access']);
    expect(emitted.code).toBe(1);
    expect(JSON.parse(emitted.stdout)).toEqual({
      read: 8,
      accepted: 2,
      delivered: 2,
      spooled: 0,
      invalid: 6,
      dropped: 0,
    });
    for (const fault of [
      ':3: the line is not JSON',
      ':4: takes a JSON object',
      ':5: kind: got "nonsense"; takes one of memory-access',
      ': usefulness: ',
      ':7: the line is not UTF-8',
      ':8: the line is longer than',
    ]) {
      expect(emitted.stderr).toContain(fault);
    }

    // The database is empty as yet: the worker brings the schema, and waits for the parents.
    const worker = begin(['worker', '--json']);
    await until(() => worker.stderr.includes('Writing memory-access'));
    await seedParents(db);
    await until(async () => (await db.sql('SELECT FROM "MemoryAccess"')).length === 2);
    worker.child.kill('SIGTERM');
    expect(await worker.exited).toBe(0);
    expect(worker.stderr).toContain('Brought the database up to date');
    expect(JSON.parse(worker.stdout).queues['memory-access']).toMatchObject({ inserted: 2 });
  });

  it('reads standard input as far as the first wrong line when strict', async () => {
    const { code, stdout, stderr } = await annals(['emit', '--strict'], {
      input: `${access({ kind: 'memory-access' })}\nwrong\n${access({ kind: 'memory-access' })}\n`,
    });
    expect(code).toBe(1);
    expect(stdout).toContain(
      'read  accepted  delivered  spooled  invalid  dropped\n2            1          1        0        1        0',
    );
    expect(stderr).toContain('line 2: the line is not JSON');
  });

  it('keeps what the queue does not take, and sends it the next time', async () => {
    const input = `${access({ kind: 'memory-access' })}\n${access({ kind: 'memory-access' })}\n`;
    const away = Object.assign(new URL(db.url), { password: 'wrong' }).href;
    const spooling = {
      ANNALS_QUEUE_BACKEND: 'postgres',
      ANNALS_SPOOL_DIR: join(folder, 'spool'),
      ANNALS_SPOOL_AFTER_MS: '500',
    };
    const kept = await annals(['emit', '--json'], {
      env: { ...spooling, DATABASE_URL: away },
      input,
    });
    expect(kept.code).toBe(0);
    expect(JSON.parse(kept.stdout)).toMatchObject({ accepted: 2, spooled: 2, dropped: 0 });
    expect(kept.stderr).toContain('Not taken by the queue: 2 events. They are safe in');
    expect(kept.stderr).toContain('password authentication failed');

    const sent = await annals(['emit', '--json'], { env: spooling, input: '' });
    expect(sent.code).toBe(0);
    expect(sent.stderr).toContain('Sent as well, left in the spool by others: 2 events');
  });

  it('keeps it as well when a signal ends it', async () => {
    const emitting = begin(['emit', '--json'], {
      ANNALS_QUEUE_BACKEND: 'postgres',
      ANNALS_SPOOL_DIR: join(folder, 'spool'),
      ANNALS_SHUTDOWN_DEADLINE_MS: '2000',
      DATABASE_URL: Object.assign(new URL(db.url), { password: 'wrong' }).href,
    });
    emitting.child.stdin.write(`${access({ kind: 'memory-access' })}\nwrong\n`);
    await until(() => emitting.stderr.includes('line 2'));
    const toldAt = performance.now();
    emitting.child.kill('SIGTERM');
    expect(await emitting.exited).toBe(1);
    expect(performance.now() - toldAt).toBeLessThan(3500);
    expect(JSON.parse(emitting.stdout)).toMatchObject({ accepted: 1, spooled: 1, dropped: 0 });
    expect(emitting.stderr).toContain('Not taken by the queue: 1 events. They are safe in');
    expect(emitting.stderr).toContain('SIGTERM came before the work was done');
  });

  it('delivers what it has when a signal ends it', async () => {
    const emitting = begin(['emit', '-', '--json']);
    emitting.child.stdin.write(`${access({ kind: 'memory-access' })}\nwrong\n`);
    await until(() => emitting.stderr.includes('line 2'));
    emitting.child.kill('SIGINT');
    expect(await emitting.exited).toBe(1);
    expect(JSON.parse(emitting.stdout)).toMatchObject({ read: 2, delivered: 1, dropped: 0 });
    expect(emitting.stderr).toContain('SIGINT came before the work was done');
  });
});
