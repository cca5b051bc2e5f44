import { mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { removeFolder } from '../support/files.ts';
import { ROOT, run } from '../support/process.ts';
import { createUserAndAgent, one } from './fixture.ts';

const guide = readFileSync(join(ROOT, 'docs/SCHEMA_MIGRATION_GUIDE.md'), 'utf8');
const snippets = [...guide.matchAll(/### (.+)\n\n```typescript\n([^]*?)```/g)].map(
  ([, title, code]) => ({
    title: title ?? '',
    code: code ?? '',
  }),
);
const importLine = "import { EnhancedSchemaService } from '../services/enhancedSchemaService';";

let db: TestDatabase;
let folder: string;
beforeAll(async () => {
  db = await createTestDatabase();
  await createUserAndAgent(db);
  // A project whose services are ours, so that nothing is written into the repository.
  folder = mkdtempSync(join(tmpdir(), 'annals-guide-'));
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  symlinkSync(join(ROOT, 'src/services'), join(folder, 'services'));
  mkdirSync(join(folder, 'app'));
});
afterAll(async () => {
  removeFolder(folder);
  await db.drop();
});

async function runSnippet(title: string) {
  const snippet = one(snippets.filter((candidate) => candidate.title === title));
  expect(snippet.code).toContain(importLine);
  const file = join(folder, 'app', `${title.replaceAll(' ', '-')}.ts`);
  writeFileSync(file, snippet.code);
  return run(process.execPath, ['--import', 'tsx', file], {
    env: { DATABASE_URL: db.url },
    timeoutMs: 20_000,
  });
}

test('the guide has the four snippets that are run here', () => {
  expect(snippets.map(({ title }) => title)).toEqual([
    'Creating a Session Hierarchy',
    'Tracking Module State Changes',
    'Creating and Versioning an Agent',
    'Creating and Accessing Memories',
  ]);
  expect(guide.match(/```typescript/g)).toHaveLength(4);
});

test('Creating a Session Hierarchy', async () => {
  const result = await runSnippet('Creating a Session Hierarchy');
  expect(result).toMatchObject({ code: 0, stderr: '' });
  const [parent, child] = await db.sql('SELECT * FROM "AgentSession" ORDER BY "sessionId" DESC');
  expect(parent).toMatchObject({
    sessionId: 'parent-session-id',
    sessionTags: ['important', 'complex'],
  });
  expect(child).toMatchObject({
    sessionId: 'child-session-id',
    parentSessionId: parent.id,
    status: 'active',
  });
  expect(await db.sql('SELECT "totalSessions", "lastActiveAt" FROM "AI_Agent"')).toEqual([
    { totalSessions: 2, lastActiveAt: child.startedAt },
  ]);

  const again = await runSnippet('Creating a Session Hierarchy');
  expect(again.code).toBe(1);
  expect(again.stderr).toContain(
    'DuplicateError: sessionId: a session "parent-session-id" exists already',
  );
});

test('Tracking Module State Changes, twice', async () => {
  for (let round = 1; round <= 2; round++) {
    expect(await runSnippet('Tracking Module State Changes')).toMatchObject({
      code: 0,
      stderr: '',
    });
    const state = one(await db.sql('SELECT * FROM "ModuleState"'));
    expect(state).toMatchObject({
      moduleId: 'module-id',
      state: {},
      stateType: 'workflow_progress',
    });
    expect(
      await db.sql('SELECT * FROM "StateTransition" WHERE "stateId" = $1', [state.id]),
    ).toHaveLength(round);
  }
});

test('Creating and Versioning an Agent', async () => {
  expect(await runSnippet('Creating and Versioning an Agent')).toMatchObject({
    code: 0,
    stderr: '',
  });
  expect(one(await db.sql('SELECT * FROM "AgentVersion"'))).toMatchObject({
    agentId: 'agent-id',
    versionNumber: '1.1.0',
    isActive: true,
    createdById: 'user-id',
  });
  const again = await runSnippet('Creating and Versioning an Agent');
  expect(again.code).toBe(1);
  expect(again.stderr).toContain(
    'DuplicateError: versionNumber: agent "agent-id" has a version "1.1.0" already',
  );
});

test('Creating and Accessing Memories', async () => {
  expect(await runSnippet('Creating and Accessing Memories')).toMatchObject({
    code: 0,
    stderr: '',
  });
  const memory = one(await db.sql('SELECT * FROM "InteractionMemory"'));
  const access = one(await db.sql('SELECT * FROM "MemoryAccess"'));
  expect(memory).toMatchObject({
    sessionId: 'session-id',
    accessCount: 1,
    lastAccessedAt: access.occurredAt,
  });
  expect(access).toMatchObject({
    memoryId: memory.id,
    usefulness: 0.9,
    context: 'Determining UI preferences',
  });
});

test('the example that the guide names runs on an empty database, and again', async () => {
  const empty = await createTestDatabase();
  try {
    for (let round = 1; round <= 2; round++) {
      const result = await run(
        process.execPath,
        ['--import', 'tsx', 'src/services/examples/enhancedSchemaExample.ts'],
        {
          env: { DATABASE_URL: empty.url },
        },
      );
      expect(result).toMatchObject({ code: 0, stderr: '' });
      expect(result.stdout).toMatch(
        /A session hierarchy[^]*A module state[^]*A version[^]*Metrics[^]*A memory/,
      );
      expect(await empty.sql('SELECT "totalSessions" FROM "AI_Agent"')).toEqual([
        { totalSessions: 2 * round },
      ]);
    }
  } finally {
    await empty.drop();
  }
});

test('the example says in one line what is wrong', async () => {
  const result = await run(
    process.execPath,
    ['--import', 'tsx', 'src/services/examples/enhancedSchemaExample.ts'],
    {
      env: { DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/nothing' },
    },
  );
  expect(result.code).toBe(1);
  expect(result.stderr).toMatch(/^The example failed: PostgreSQL cannot be reached.*\n$/);
});
