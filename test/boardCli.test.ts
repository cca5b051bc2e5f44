import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, inject, it, vi } from 'vitest';

import { createTestDatabase, testPrefix, type TestDatabase } from './support/database.ts';
import { createEmptyDatabase, type EmptyDatabase } from './support/emptyDatabase.ts';
import { removeFolder } from './support/files.ts';
import { run, spawnTsx } from './support/process.ts';
import { startPostgres } from './support/servers.ts';

vi.setConfig({ testTimeout: 240_000 }); // programs take their time to start on a busy machine

interface Health {
  checks: Record<string, string>;
}

const MAIN = 'src/cli/main.ts';

let db: EmptyDatabase;
let folder: string;
let env: Record<string, string | undefined>;

beforeAll(async () => {
  db = await createEmptyDatabase();
  folder = mkdtempSync(join(tmpdir(), 'annals-board-'));
  const redis = inject('redisUrl');
  env = {
    DATABASE_URL: db.url,
    REDIS_URL: redis ?? undefined,
    ANNALS_QUEUE_BACKEND: redis ? 'redis' : 'postgres',
    ANNALS_QUEUE_PREFIX: testPrefix(),
    ANNALS_DATA_DIR: folder,
    ANNALS_BOARD_PORT: '0',
    ANNALS_SHUTDOWN_DEADLINE_MS: '5000',
  };
});

afterAll(async () => {
  await db.drop();
  removeFolder(folder);
});

/** Starts a command and resolves when its board answers. */
async function open(command: string, changes: Record<string, string> = {}) {
  const child = spawnTsx(MAIN, [command], { ...env, ...changes });
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output += text));
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  const url = () => /Board: (http:\S+);/.exec(output)?.[1] ?? `nowhere: ${output}`;
  await expect.poll(url, { timeout: 100_000 }).toMatch(/^http/);
  return {
    url: url(),
    stop: async () => {
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      const [code] = (await exited) as [number | null];
      return code;
    },
  };
}

it('start brings an empty database up to date and runs workers and board until SIGTERM', async () => {
  const { url, stop } = await open('start');
  await expect.poll(async () => (await fetch(`${url}/readyz`)).status).toBe(200);
  await expect
    .poll(async () => (await fetch(`${url}/metrics`)).text())
    .toContain('annals_workers 1');
  expect(await (await fetch(url)).text()).toContain('<h1>Annals</h1>');
  const metrics = await (await fetch(`${url}/metrics`)).text();
  expect(metrics).toMatch(/worker="[^":]+:\d+:[0-9a-f]{6}"/); // containers share the rest
  expect(await stop()).toBe(0);
});

it('board says what is pending in a database that is not ours to migrate', async () => {
  const plain: TestDatabase = await createTestDatabase();
  await plain.sql('DROP TABLE _prisma_migrations'); // made by other means than Prisma
  const { url, stop } = await open('board', { DATABASE_URL: plain.url });
  const checks = async () => {
    const { checks } = (await (await fetch(`${url}/readyz`)).json()) as {
      checks: Record<string, string>;
    };
    return checks;
  };
  await expect
    .poll(checks)
    .toMatchObject({ database: 'ok', migrations: expect.stringContaining('npx annals migrate') });
  expect(await stop()).toBe(0);
  await plain.drop();
});

it.each(['board', 'start'])(
  '%s answers while PostgreSQL is away, ends when told to, and goes on when it is back',
  async (command) => {
    const postgres = await startPostgres();
    await postgres.kill();
    const servers = { DATABASE_URL: postgres.url, ANNALS_QUEUE_BACKEND: 'postgres' };
    const status = async (url: string, path: string) => (await fetch(`${url}${path}`)).status;
    const early = await open(command, servers);
    expect(await status(early.url, '/healthz')).toBe(200);
    expect(await status(early.url, '/readyz')).toBe(503);
    expect(await early.stop()).toBe(0);

    const { url, stop } = await open(command, servers);
    expect(await status(url, '/readyz')).toBe(503);
    await postgres.restart();
    const ready = command === 'start' ? 200 : 503; // a board alone makes no tables
    await expect.poll(() => status(url, '/readyz')).toBe(ready);
    await expect
      .poll(async () => ((await (await fetch(`${url}/readyz`)).json()) as Health).checks)
      .toMatchObject({ database: 'ok', queue: 'ok' });
    expect(await stop()).toBe(0);
    await postgres.stop();
  },
);

it('board refuses a server that does not know it', async () => {
  const changes = { DATABASE_URL: Object.assign(new URL(db.url), { password: 'wrong' }).href };
  const { code, stderr } = await run(process.execPath, ['--import', 'tsx', MAIN, 'board'], {
    env: { ...env, ...changes },
  });
  expect(stderr).toMatch(/PostgreSQL at .* refuses: .*Is DATABASE_URL right/);
  expect(code).toBe(2);
});

it('refuses to listen beyond loopback without credentials, and a port that is taken', async () => {
  const board = (changes: Record<string, string>) =>
    run(process.execPath, ['--import', 'tsx', MAIN, 'board'], { env: { ...env, ...changes } });
  const exposed = await board({ ANNALS_BOARD_HOST: '0.0.0.0' });
  expect(exposed.stderr).toMatch(/ANNALS_BOARD_HOST: .*set ANNALS_BOARD_PASSWORD/);
  expect(exposed.code).toBe(2);

  const { url, stop } = await open('board', {
    ANNALS_BOARD_HOST: '0.0.0.0',
    ANNALS_BOARD_TOKEN: 'battery-staple-0123',
  });
  const { port } = new URL(url);
  const local = `http://127.0.0.1:${port}/metrics`;
  expect((await fetch(local)).status).toBe(401);
  const authorization = 'Bearer battery-staple-0123';
  expect((await fetch(local, { headers: { authorization } })).status).toBe(200);

  const taken = await board({ ANNALS_BOARD_PORT: port });
  expect(taken.stderr).toContain(`port ${port} is in use; set ANNALS_BOARD_PORT to another`);
  expect(taken.code).toBe(2);
  expect(await stop()).toBe(0);
});

it.each(['board', 'start'])('%s --help shows examples', async (command) => {
  const { code, stdout } = await run(process.execPath, [
    '--import',
    'tsx',
    MAIN,
    command,
    '--help',
  ]);
  expect(code).toBe(0);
  expect(stdout).toMatch(new RegExp(`Examples:\\n {2}\\$ annals ${command}\\n`));
});
