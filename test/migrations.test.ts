import { readdirSync, readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';

import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { applyMigrations, LEGACY_MIGRATION, migrationStatus } from '../src/database/migrations.ts';
import { BaselineNeededError, MigrationError, UnavailableError } from '../src/errors.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { createEmptyDatabase } from './support/emptyDatabase.ts';
import { run } from './support/process.ts';
import { drift } from './support/schemaEngine.ts';

const PRISMA_FOLDER = new URL('../prisma/', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, PRISMA_FOLDER), 'utf8');
const migrations = readdirSync(new URL('migrations/', PRISMA_FOLDER), { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name)
  .toSorted()
  .map((name) => ({ name, sql: read(`migrations/${name}/migration.sql`) }));
const names = migrations.map(({ name }) => name);
const enhancement = migrations.filter(({ name }) => name.includes('_enhance_schema_'));

const prisma = (databaseUrl: string, ...args: string[]) =>
  run(process.execPath, ['node_modules/prisma/build/index.js', ...args], {
    env: { DATABASE_URL: databaseUrl, NO_COLOR: '1', CHECKPOINT_DISABLE: '1' },
    timeoutMs: 50_000,
  });

async function emptyDatabase() {
  const db = await createEmptyDatabase();
  onTestFinished(() => db.drop());
  return db;
}

/** A database that was in use before: plain tables by plain SQL, and rows in them. */
async function plainDatabase() {
  const db = await emptyDatabase();
  await db.sql(read(`migrations/${LEGACY_MIGRATION}/migration.sql`));
  await db.sql(`
    INSERT INTO "AgentSession" (id, "sessionId", "agentId", status, "updatedAt") VALUES ('s', 'run-1', 'an agent that is gone', 'ended', now());
    INSERT INTO "ModuleState" (id, "moduleId", state, version, "updatedAt") VALUES ('m', 'planner', '{}', '1', now());
    INSERT INTO "InteractionMemory" (id, "userId", "agentId", type, content, importance, "updatedAt") VALUES ('i', 'u', 'a', 'fact', '{}', 7, now());`);
  return db;
}

test('of three processes that migrate an empty database at once, one does', async () => {
  const db = await emptyDatabase();
  expect(await migrationStatus(db.url)).toEqual({
    applied: [],
    pending: names,
    failed: [],
    baselineNeeded: false,
  });

  const lines: string[] = [];
  const onOutput = (line: string) => lines.push(line);
  const applied = await Promise.all([1, 2, 3].map(() => applyMigrations(db.url, { onOutput })));
  expect(applied.toSorted((a, b) => b.length - a.length)).toEqual([names, [], []]);
  expect(lines).toContain('Another process is migrating this database; waiting for it.');
  expect(await migrationStatus(db.url)).toEqual({
    applied: names,
    pending: [],
    failed: [],
    baselineNeeded: false,
  });
  expect(await db.sql('SELECT count(*)::int AS rows FROM _prisma_migrations')).toEqual([
    { rows: names.length },
  ]);

  const before = performance.now();
  expect(await applyMigrations(db.url)).toEqual([]);
  expect(performance.now() - before, 'milliseconds when nothing is pending').toBeLessThan(1000);

  const toSchema = ['--to-schema', 'prisma/schema.prisma', '--exit-code'];
  for (const from of [['--from-config-datasource'], ['--from-migrations', 'prisma/migrations']]) {
    const diff = await prisma(db.url, 'migrate', 'diff', ...from, ...toSchema);
    expect(diff, from[0]).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('No difference detected'),
    });
  }
});

test('an existing database is baselined; a locked table fails the migration fast, and changes nothing', async () => {
  const db = await plainDatabase();
  expect(await migrationStatus(db.url)).toMatchObject({ applied: [], baselineNeeded: true });
  const refusal = applyMigrations(db.url);
  await expect(refusal).rejects.toThrow(BaselineNeededError);
  await expect(refusal).rejects.toThrow('npx annals migrate --baseline');

  const reader = await db.connect();
  await reader.query('BEGIN; SELECT count(*) FROM "ModuleState"');
  const blocked = applyMigrations(db.url, { baseline: true });
  await expect(blocked).rejects.toThrow(UnavailableError);
  await expect(blocked).rejects.toThrow(/enhance_schema_states did not get its lock in time/);
  expect(await migrationStatus(db.url)).toMatchObject({
    applied: names.slice(
      0,
      names.findIndex((name) => name.endsWith('enhance_schema_states')),
    ),
    failed: [],
    baselineNeeded: false,
  });
  expect(await db.sql(`SELECT to_regclass('"StateTransition"') AS it`)).toEqual([{ it: null }]);

  await reader.query('COMMIT');
  await applyMigrations(db.url);
  expect((await migrationStatus(db.url)).pending).toEqual([]);
  expect(
    await db.sql('SELECT status, "sessionTags", "parentSessionId" FROM "AgentSession"'),
  ).toEqual([{ status: 'ended', sessionTags: null, parentSessionId: null }]);
  expect(
    await db.sql('SELECT importance, "accessCount", confidence FROM "InteractionMemory"'),
  ).toEqual([{ importance: 7, accessCount: 0, confidence: null }]);
  expect(await db.sql('SELECT FROM pg_constraint WHERE NOT convalidated')).toEqual([]);
  expect(await db.sql('SHOW lock_timeout')).toEqual([{ lock_timeout: '0' }]);
  expect(await drift(db.url)).toBe('');
});

test('what to do about an index that failed half way is said, and works', async () => {
  const db = await plainDatabase();
  const [index, name] = [
    'AI_Agent_userId_idx',
    names.find((each) => each.endsWith('index_agents_user')),
  ];
  // What CREATE INDEX CONCURRENTLY leaves behind when it is cut short is in the way like this one.
  await db.sql(`CREATE INDEX "${index}" ON "AI_Agent" ("userId")`);
  const failure = await applyMigrations(db.url, { baseline: true }).catch(
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(MigrationError);
  expect((failure as Error).message).toContain(
    `Migration ${name} failed: ERROR: relation "${index}" already exists`,
  );
  expect((await migrationStatus(db.url)).failed).toEqual([name]);
  await expect(applyMigrations(db.url)).rejects.toThrow(
    `Migration ${name} failed and is not resolved`,
  );

  const [, drop] = /echo '(DROP INDEX .+)'/.exec((failure as Error).message) ?? [];
  const [, resolve] = /npx prisma (migrate resolve .+)/.exec((failure as Error).message) ?? [];
  await db.sql(drop as string);
  expect(await prisma(db.url, ...(resolve as string).split(' '))).toMatchObject({ code: 0 });
  await applyMigrations(db.url);
  expect(await migrationStatus(db.url)).toMatchObject({ applied: names, failed: [] });
});

test(
  'what a kill left half done is healed where nobody else looks after the database',
  {
    timeout: 180_000,
  },
  async () => {
    const db = await emptyDatabase();
    await applyMigrations(db.url);
    const begun = (name: string) =>
      db.sql(
        `UPDATE _prisma_migrations SET finished_at = NULL, applied_steps_count = 0 WHERE migration_name LIKE '%' || $1`,
        [name],
      );
    const oid = `'"AI_Agent_userId_idx"'::regclass`;

    await begun('index_agents_user'); // killed in the middle of its building
    await db.sql(`UPDATE pg_index SET indisvalid = false WHERE indexrelid = ${oid}`);
    await begun('_backfill'); // killed between the commit and the note of it
    await expect(applyMigrations(db.url)).rejects.toThrow(MigrationError);
    expect(await applyMigrations(db.url, { heal: true })).toEqual([
      names.find((name) => name.endsWith('index_agents_user')),
      names.find((name) => name.endsWith('_backfill')),
    ]);
    expect(await db.sql(`SELECT indisvalid FROM pg_index WHERE indexrelid = ${oid}`)).toEqual([
      { indisvalid: true },
    ]);

    expect(await migrationStatus(db.url)).toMatchObject({ applied: names, failed: [] });
    expect(await drift(db.url)).toBe('');
  },
);

test('faults of the connection are told apart', async () => {
  const db = await emptyDatabase();
  const url = (parts: object) => Object.assign(new URL(db.url), parts).href;
  await expect(migrationStatus(url({ port: '1' }))).rejects.toThrow(UnavailableError);
  await expect(migrationStatus(url({ password: 'wrong' }))).rejects.toThrow(
    /password authentication failed/,
  );
  await expect(applyMigrations(url({ pathname: 'nowhere' }))).rejects.toThrow(
    /Database "nowhere" does not exist/,
  );
  await expect(applyMigrations(db.url, { signal: AbortSignal.timeout(300) })).rejects.toThrow(
    /abort/i,
  );
});

describe('each migration suits a table in use', () => {
  test('a key within a table comes after the index that a DELETE needs for it', () => {
    const placeOf = (text: string) =>
      names.findIndex((name) => read(`migrations/${name}/migration.sql`).includes(text));
    for (const [table, column] of [
      ['AgentSession', 'parentSessionId'],
      ['ModuleState', 'previousStateId'],
    ]) {
      const index = placeOf(` ON "${table}"("${column}")`);
      expect(index).toBeGreaterThan(0);
      expect(placeOf(`FOREIGN KEY ("${column}")`)).toBeGreaterThan(index);
    }
  });

  const PLAIN = '"(?:User|AI_Agent|AgentSession|ModuleState|InteractionMemory)"';
  const code = (sql: string) => sql.replaceAll(/^--.*\n/gm, '').trim();

  test.each(enhancement)('$name', ({ sql }) => {
    const statements = code(sql).split(/;\s*/).filter(Boolean);
    if (/CONCURRENTLY/.test(sql)) {
      expect(statements).toHaveLength(1); // more would be a transaction, in which it cannot run
      return;
    }
    expect(statements[0]).toBe("SET LOCAL lock_timeout = '2s'");
    expect(sql).not.toMatch(new RegExp(`INDEX .* ON ${PLAIN}`));
    for (const [line] of sql.matchAll(/^ +ADD CONSTRAINT .*$/gm))
      expect(line).toMatch(/ NOT VALID[,;]$/);
    for (const [line] of sql.matchAll(/^ +ADD COLUMN .* NOT NULL.*$/gm))
      expect(line).toMatch(/ DEFAULT (0|false),$/);
    if (/NOT VALID/.test(sql)) expect(sql).not.toMatch(/VALIDATE CONSTRAINT/);
    const locked = new Set(
      Array.from(
        sql.matchAll(new RegExp(`ALTER TABLE (${PLAIN})|REFERENCES (${PLAIN})`, 'g')),
        ([, altered, parent]) => altered ?? parent,
      ),
    );
    expect([...locked], 'existing tables that it locks').toHaveLength(1);
  });
});

describe('the model diff for review', () => {
  const review = read('migrations/20240620_enhance_schema.prisma');
  const models = (source: string) =>
    new Map(
      Array.from(source.matchAll(/^model (\w+) \{(.*)\n([^]*?)^\}/gm), ([, name, mark, body]) => [
        name as string,
        {
          added: mark?.includes('+ added'),
          lines: (body as string).split('\n').filter((line) => !/^\s*(\/\/|$)/.test(line)),
        },
      ]),
    );
  const bare = (line: string) =>
    line
      .replace(/\/\/.*/, '')
      .trim()
      .replaceAll(/\s+/g, ' ');

  test('has the models of schema.prisma', () => {
    const withoutMarks = (source: string) =>
      Array.from(models(source), ([name, { lines }]) => [name, lines.map(bare)]);
    expect(withoutMarks(review)).toEqual(withoutMarks(read('schema.prisma')));
  });

  test('marks what plain tables do not have', () => {
    const plain = Array.from(
      read(`migrations/${LEGACY_MIGRATION}/migration.sql`).matchAll(
        /^CREATE TABLE "(\w+)" \(\n([^]*?)\n\);/gm,
      ),
      ([, table, body]) => [
        table,
        Array.from((body as string).matchAll(/^ {4}"(\w+)"/gm), ([, column]) => column),
      ],
    );
    const unmarked = Array.from(models(review))
      .filter(([, { added }]) => !added)
      .map(([name, { lines }]) => [
        name,
        lines
          .filter((line) => !line.includes('// + added'))
          .map((line) => bare(line).split(' ')[0]),
      ]);
    expect(unmarked).toEqual(plain);
  });
});

describe('the database itself refuses', () => {
  let db: TestDatabase;
  beforeAll(async () => {
    db = await createTestDatabase();
    await db.sql(
      `INSERT INTO "AI_Agent" (id, "userId", name, capabilities, configuration, "updatedAt") VALUES ('a', 'u', 'n', '[]', '{}', now())`,
    );
    await db.sql(
      `INSERT INTO "AgentSession" (id, "sessionId", status, "updatedAt") VALUES ('s', 'run-1', 'active', now())`,
    );
    await db.sql(
      `INSERT INTO "ModuleState" (id, "moduleId", state, version, "updatedAt") SELECT id, 'm', '{}', '1', now() FROM unnest('{m1,m2,m3}'::text[]) AS id`,
    );
    await db.sql(
      `INSERT INTO "InteractionMemory" (id, "userId", "agentId", type, content, importance, "updatedAt") VALUES ('i', 'u', 'a', 'fact', '{}', 1, now())`,
    );
    await db.sql(`UPDATE "ModuleState" SET "previousStateId" = 'm1' WHERE id = 'm2'`);
    await db.sql(
      `INSERT INTO "AgentVersion" (id, "agentId", "versionNumber", changes, "isActive") VALUES (gen_random_uuid(), 'a', '1.0.0', '{}', true)`,
    );
  });
  afterAll(() => db.drop());

  const ranges = [
    ['AI_Agent', 'successRate'],
    ['AgentSession', 'qualityScore'],
    ['AgentSession', 'userSatisfaction'],
    ['InteractionMemory', 'confidence'],
  ].flatMap(([table, column]) =>
    ['-0.01', '1.01', 'NaN'].map((value) => [
      `${table}_${column}_check`,
      `UPDATE "${table}" SET "${column}" = '${value}'`,
    ]),
  );
  const metrics = ['NaN', 'Infinity', '-Infinity'].flatMap((value) => [
    [
      'SessionMetric_metricValue_check',
      `INSERT INTO "SessionMetric" (id, "sessionId", "metricType", "metricValue") VALUES (gen_random_uuid(), 's', 't', '${value}')`,
    ],
    [
      'AgentMetric_metricValue_check',
      `INSERT INTO "AgentMetric" (id, "agentId", "metricType", "metricValue") VALUES (gen_random_uuid(), 'a', 't', '${value}')`,
    ],
  ]);
  const usefulness = ['-0.01', '1.01', 'NaN'].map((value) => [
    'MemoryAccess_usefulness_check',
    `INSERT INTO "MemoryAccess" (id, "memoryId", "accessType", "accessedBy", "accessorType", usefulness) VALUES (gen_random_uuid(), 'i', 'read', 'a', 'agent', '${value}')`,
  ]);
  const durations = ['-1', 'NaN', 'Infinity'].map((value) => [
    'SessionEvent_duration_check',
    `INSERT INTO "SessionEvent" (id, "sessionId", "eventType", "eventData", sequence, duration) VALUES (gen_random_uuid(), 's', 't', '{}', 0, '${value}')`,
  ]);
  const version = (number: string, isActive: boolean) =>
    `INSERT INTO "AgentVersion" (id, "agentId", "versionNumber", changes, "isActive") VALUES (gen_random_uuid(), 'a', '${number}', '{}', ${isActive})`;

  test.each([
    ...ranges,
    ...metrics,
    ...usefulness,
    ...durations,
    ['AI_Agent_totalSessions_check', `UPDATE "AI_Agent" SET "totalSessions" = -1`],
    ['InteractionMemory_accessCount_check', `UPDATE "InteractionMemory" SET "accessCount" = -1`],
    ['AgentSession_parentSessionId_check', `UPDATE "AgentSession" SET "parentSessionId" = id`],
    ['AgentSession_parentSessionId_fkey', `UPDATE "AgentSession" SET "parentSessionId" = 'nobody'`],
    [
      'ModuleState_previousStateId_check',
      `UPDATE "ModuleState" SET "previousStateId" = id WHERE id = 'm3'`,
    ],
    [
      'ModuleState_previousStateId_key',
      `UPDATE "ModuleState" SET "previousStateId" = 'm1' WHERE id = 'm3'`,
    ],
    [
      'ModuleState_previousStateId_fkey',
      `UPDATE "ModuleState" SET "previousStateId" = 'nobody' WHERE id = 'm3'`,
    ],
    ['AgentVersion_agentId_active_key', version('1.1.0', true)],
    ['AgentVersion_agentId_versionNumber_key', version('1.0.0', false)],
    [
      'MemoryAccess_memoryId_fkey',
      `INSERT INTO "MemoryAccess" (id, "memoryId", "accessType", "accessedBy", "accessorType") VALUES (gen_random_uuid(), 'nobody', 'read', 'a', 'agent')`,
    ],
  ] as [string, string][])('%s: %s', async (constraint, statement) => {
    await expect(db.sql(statement)).rejects.toMatchObject({ constraint });
  });

  test('and takes what is at the edges', async () => {
    await db.sql(
      `UPDATE "AI_Agent" SET "successRate" = 1; UPDATE "AgentSession" SET "qualityScore" = 0, "userSatisfaction" = 1`,
    );
    await db.sql(version('1.1.0', false));
  });
});
