import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { freePort } from '../src/embedded/process.ts';
import { createEmptyDatabase, type EmptyDatabase, onServer } from './support/emptyDatabase.ts';
import { removeFolder } from './support/files.ts';
import { ROOT, run } from './support/process.ts';
import {
  drift,
  Engine,
  engineCommand,
  filters,
  migrationsList,
  schema,
  type Datasource,
} from './support/schemaEngine.ts';

let db: EmptyDatabase;
beforeAll(async () => {
  db = await createEmptyDatabase();
});
afterAll(() => db.drop());

const at = (parts: object) => Object.assign(new URL(db.url), parts).href;

function open(datasource: Datasource) {
  const engine = new Engine(datasource);
  onTestFinished(async () => void (await engine.close()));
  return engine;
}

const shadows = () =>
  db.sql(`SELECT datname FROM pg_database WHERE datname LIKE 'prisma_migrate_shadow_db_%'`);

describe('why there is no connection', () => {
  const cases: [code: string, message: RegExp, url: () => Promise<string> | string][] = [
    [
      'P1000',
      /Authentication failed .* credentials for `postgres` are not valid/,
      () => at({ password: 'wrong' }),
    ],
    ['P1000', /Authentication failed/, () => at({ password: '' })],
    [
      'P1001',
      /Can't reach database server at `127\.0\.0\.1:\d+`/,
      async () => at({ port: await freePort() }),
    ],
    [
      'P1001',
      /Can't reach database server at `nowhere\.invalid:5432`/,
      () => 'postgresql://nowhere.invalid/x',
    ],
    ['P1003', /Database `nowhere` does not exist/, () => at({ pathname: 'nowhere' })],
    ['P1013', /PostgreSQL only, not `mysql:`/, () => 'mysql://localhost/x'],
    ['P1013', /must be a URL/, () => 'localhost'],
  ];

  test.each(cases)('%s %s', async (code, message, url) => {
    const { code: exitCode, stderr } = await engineCommand('can-connect-to-database', await url());
    expect(exitCode).toBe(1);
    // Prisma's command line skips the first line, and takes each other for JSON.
    const [, ...lines] = stderr.trim().split('\n');
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      {
        level: 'ERROR',
        target: 'schema_engine::logger',
        fields: { error_code: code, message: expect.stringMatching(message) },
      },
    ]);
    expect(stderr).not.toContain('wrong');

    const { error } = await open({ url: await url() }).call('getDatabaseVersion');
    expect(error.data).toMatchObject({ error_code: code, message: expect.stringMatching(message) });
  });
});

test('a database is made once, and dropped', async () => {
  const url = at({ pathname: `made "by" engine ${process.pid}` });
  const outcome = async (command: string) => {
    const { code, stderr } = await engineCommand(command, url);
    return code === 0 ? 'ok' : /"error_code":"(\w+)"/.exec(stderr)?.[1];
  };
  expect(await outcome('can-connect-to-database')).toBe('P1003');
  expect(await outcome('create-database')).toBe('ok');
  expect(await outcome('can-connect-to-database')).toBe('ok');
  expect(await outcome('create-database')).toBe('P1009');
  expect(await outcome('drop-database')).toBe('ok');
  expect(await outcome('drop-database')).toBe('P1003');
});

test('migrations are applied, found in step with the schema, and one that fails is told by name', async () => {
  const own = await createEmptyDatabase();
  onTestFinished(() => own.drop());
  const engine = open({ url: own.url });
  const list = migrationsList();
  expect(await engine.call('applyMigrations', { migrationsList: list, filters })).toMatchObject({
    result: { appliedMigrationNames: list.migrationDirectories.map(({ path }) => path) },
  });
  expect(await engine.call('devDiagnostic', { migrationsList: list, filters })).toMatchObject({
    result: { action: { tag: 'createMigration' } },
  });
  expect(await drift(own.url)).toBe('');
  await own.sql('ALTER TABLE "User" ADD COLUMN nick text');
  expect(await drift(own.url)).toMatch(/Removed column `nick`/);
  expect(await shadows()).toEqual([]);

  const bad = migrationsList({
    '20990101000000_bad': 'CREATE TABLE half (); ALTER TABLE "User" ADD COLUMN nick text',
  });
  const { error } = await engine.call('applyMigrations', { migrationsList: bad, filters });
  expect(error.data.error_code).toBe('P3018');
  expect(error.data.message).toMatch(
    /Migration name: 20990101000000_bad\n\nDatabase error code: 42701\n/,
  );
  expect(await own.sql(`SELECT to_regclass('half') AS half`)).toEqual([{ half: null }]);
  expect(
    (await engine.call('applyMigrations', { migrationsList: bad, filters })).error.data.error_code,
  ).toBe('P3009');
});

test('a session that waits for the advisory lock does not hold up CREATE INDEX CONCURRENTLY', async () => {
  const own = await createEmptyDatabase();
  onTestFinished(() => own.drop());
  await own.sql('CREATE TABLE busy (id int)');
  await own.sql('SELECT pg_advisory_lock(72707369)');
  const waiting = open({ url: own.url }).call('applyMigrations', {
    migrationsList: migrationsList(),
    filters,
  });
  await expect
    .poll(
      () =>
        own.sql(
          `SELECT query FROM pg_stat_activity WHERE application_name = 'prisma-schema-engine' AND datname = current_database()`,
        ),
      { timeout: 20_000 }, // the engine takes its time to start on a busy machine
    )
    .toEqual([{ query: expect.stringContaining('72707369') }]);

  await own.sql(`SET statement_timeout = '5s'`);
  await own.sql('CREATE INDEX CONCURRENTLY busy_id ON busy (id)');
  expect(
    await own.sql('SELECT indisvalid FROM pg_index WHERE indexrelid = $1::regclass', ['busy_id']),
  ).toEqual([{ indisvalid: true }]);

  await own.sql('SELECT pg_advisory_unlock(72707369)');
  expect(await waiting).toHaveProperty('error.data.error_code', 'P3005'); // the schema is not empty
});

test('it ends when its input does, whatever it waits for', async () => {
  await db.sql('SELECT pg_advisory_lock(72707369)');
  const engine = open({ url: db.url });
  void engine.call('applyMigrations', { migrationsList: migrationsList(), filters });
  await sleep(500);
  expect(await engine.close()).toBe(0);
  await db.sql('SELECT pg_advisory_unlock(72707369)');
});

test('a panic and an unknown method are answered', async () => {
  const engine = open({ url: db.url });
  expect((await engine.call('noSuchMethod')).error).toMatchObject({ code: -32601 });
  expect((await engine.call('debugPanic')).error.data).toEqual({
    is_panic: false,
    message: expect.stringContaining('This is the debugPanic artificial panic'),
  });
  expect(await engine.ended).toBe(1);
});

describe('without the right to create databases', () => {
  const role = `modest_${process.pid}`;
  const asRole = () => at({ username: role, password: 'modest' });
  beforeAll(() => onServer(`CREATE ROLE ${role} LOGIN PASSWORD 'modest' NOCREATEDB`));
  afterAll(() => onServer(`DROP OWNED BY ${role}; DROP ROLE ${role}`));

  const diff = (engine: Engine) =>
    engine.call('diff', {
      from: { tag: 'migrations', ...migrationsList() },
      to: { tag: 'schemaDatamodel', ...schema() },
      script: false,
      exitCode: true,
      filters,
    });

  test('the shadow database is refused', async () => {
    expect((await diff(open({ url: asRole() }))).error.data).toMatchObject({
      error_code: 'P3014',
      message: expect.stringMatching(
        /could not create the shadow database.*permission denied to create database/s,
      ),
    });
  });

  test('one that is given is used, and wiped first', async () => {
    const shadow = await createEmptyDatabase();
    onTestFinished(() => shadow.drop());
    await shadow.sql(
      `CREATE TABLE "User" (); ALTER SCHEMA public OWNER TO ${role}; GRANT CREATE ON DATABASE ${new URL(shadow.url).pathname.slice(1)} TO ${role}`,
    );
    const shadowDatabaseUrl = Object.assign(new URL(shadow.url), {
      username: role,
      password: 'modest',
    }).href;
    const engine = open({ url: asRole(), shadowDatabaseUrl });
    expect(await diff(engine)).toMatchObject({ result: { exitCode: 0 } });
    expect(engine.printed.join()).toMatch(/No difference detected/);
  });
});

test('prisma migrate dev, status and reset work in a project, and say what Prisma says', async () => {
  const project = mkdtempSync(join(tmpdir(), 'annals-project-'));
  const own = await createEmptyDatabase();
  onTestFinished(async () => {
    removeFolder(project);
    await own.drop();
  });
  for (const path of ['package.json', 'prisma.config.ts', 'prisma', 'tools'])
    cpSync(join(ROOT, path), join(project, path), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(project, 'node_modules'));
  // The URL comes from `.env` here.
  writeFileSync(join(project, '.env'), `DATABASE_URL=${own.url}\n`);
  const prisma = (...args: string[]) =>
    run(process.execPath, ['node_modules/prisma/build/index.js', ...args], {
      cwd: project,
      env: { DATABASE_URL: undefined, NO_COLOR: '1', CHECKPOINT_DISABLE: '1' },
      timeoutMs: 40_000,
    });

  const dev = await prisma('migrate', 'dev', '--name', 'enhance_schema');
  expect(dev, dev.stderr).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('Your database is now in sync with your schema.'),
  });
  const file = join(project, 'prisma/schema.prisma');
  writeFileSync(
    file,
    readFileSync(file, 'utf8').replace('model User {', 'model User {\n  nick String?'),
  );
  expect(await prisma('migrate', 'dev', '--name', 'add_nick')).toMatchObject({ code: 0 });
  const made = readdirSync(join(project, 'prisma/migrations')).find((name) =>
    name.endsWith('_add_nick'),
  ) as string;
  expect(readFileSync(join(project, 'prisma/migrations', made, 'migration.sql'), 'utf8')).toBe(
    '-- AlterTable\nALTER TABLE "User" ADD COLUMN     "nick" TEXT;\n',
  );
  expect(await own.sql('SELECT nick FROM "User"')).toEqual([]);
  expect(await prisma('migrate', 'reset')).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('--force'),
  });
});
