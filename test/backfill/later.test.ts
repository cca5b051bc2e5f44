import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, it } from 'vitest';

import { TRANSFORMS } from '../../src/backfill/transforms/index.ts';
import { verify } from '../../src/backfill/verify.ts';
import { Closer } from '../../src/closer.ts';
import { createLogger } from '../../src/logger.ts';
import { replay } from '../../src/replay/replay.ts';
import { EnhancedSchemaService as service } from '../../src/services/enhancedSchemaService.ts';
import { testConfig } from '../support/pipeline.ts';
import { createFixture, seedPlain, type Fixture } from './fixture.ts';
import { removeFolder } from '../support/files.ts';

// What is written after a backfill: by whom, and whether that leaves anything to be filled in.

let db: Fixture;
beforeEach(async () => {
  db = await createFixture();
  service.use(db.prisma);
});
afterEach(() => db.drop());

const verified = async () => {
  const found = await Promise.all(TRANSFORMS.map((table) => verify(db.pool, table)));
  return Object.fromEntries(
    found.map(({ table, remaining, differing }) => [table, [remaining, differing]]),
  );
};
const CLEAN = Object.fromEntries(TRANSFORMS.map(({ name }) => [name, [0, 0]]));

async function backfill(): Promise<void> {
  await db.start();
  expect((await db.finished()).map(({ status }) => status)).toEqual(Array(4).fill('completed'));
}

async function useService(): Promise<void> {
  const early = new Date('2020-01-01');
  const parent = await service.createSession({
    sessionId: 'new',
    userId: 'user',
    agentId: 'idle', // whose lastActiveAt the backfill took from updatedAt, which is later
    startedAt: early,
    context: { goal: 'g', categories: ['a', 7] },
  });
  await service.createSession({
    sessionId: 'child',
    agentId: 'agent-1',
    parentSessionId: parent.id,
  });
  await service.endSession({ sessionId: 'session-1', qualityScore: 0.5 });
  for (const step of [1, 2]) {
    for (const moduleId of ['module-1', 'new']) {
      await service.upsertModuleState({ moduleId, state: { step }, version: '2' });
    }
  }
  await service.createAgentVersion({
    agentId: 'agent-1',
    versionNumber: '2.0.0',
    changes: {},
    isActive: true,
  });
  await service.updateAgentMetrics({ agentId: 'agent-1', successRate: 0.5 });
  const [old] = await db.sql(`SELECT "id" FROM "InteractionMemory" LIMIT 1`);
  const memory = { userId: 'user', agentId: 'idle', content: {}, importance: 7 };
  const { id } = await service.createMemory({ ...memory, type: 'Setting' });
  await service.createMemory({ ...memory, type: 'something of its own' });
  for (const memoryId of [old.id, id]) {
    await service.recordMemoryAccess({
      memoryId,
      accessType: 'read',
      accessedBy: 'idle',
      accessorType: 'agent',
      occurredAt: early,
    });
  }
}

async function replayConversation(): Promise<void> {
  const call = (name: string, args: object) => ({
    id: name,
    type: 'function',
    function: { name, arguments: JSON.stringify(args) },
  });
  const conversation = {
    task_id: 0,
    trial: 0,
    reward: 1,
    user_id: 'ann',
    messages: [
      {
        role: 'assistant',
        content: null,
        tool_calls: [
          call('get_user_details', { user_id: 'ann' }),
          call('cancel_reservation', { reservation_id: 'R1' }),
        ],
      },
    ],
  };
  const folder = mkdtempSync(join(tmpdir(), 'annals-test-'));
  const file = join(folder, 'shop-agent.ndjson');
  writeFileSync(file, JSON.stringify(conversation));
  const log = createLogger(testConfig());
  const closer = new Closer(log);
  try {
    const report = await replay({
      file,
      naming: { source: 'shop', agentId: 'shop-agent', startAt: new Date('2019-01-01') },
      databaseUrl: db.url,
      queue: db.location,
      config: testConfig(),
      log,
      closer,
      signal: new AbortController().signal,
    });
    expect(report).toMatchObject({ ok: true, memories: 1, moduleStates: 1 });
  } finally {
    await closer.close(10_000);
    removeFolder(folder);
  }
}

it('the service and a replay leave nothing to fill in, and plain programs what the next start does', async () => {
  await seedPlain(db, 300);
  await db.sql(
    `INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "updatedAt")
     VALUES ('idle', 'user', 'n', '[]', '{}', '2024-02-01')`,
  );
  await db.work();
  await backfill();
  expect(await verified()).toEqual(CLEAN);

  await useService();
  await replayConversation();
  expect(await verified()).toEqual(CLEAN);

  await db.sql(
    `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt")
     VALUES ('plain', 'user', 'idle', 'fact', '{}', 0.5, now())`,
  );
  await db.sql(
    `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "updatedAt") VALUES ('plain', 'new', '{}', '1', now())`,
  );
  expect(await verified()).toEqual({
    ...CLEAN,
    'interaction-memories': [1, 0],
    'module-states': [1, 0],
  });
  // A session that nobody counted: the agent's count, too, is no longer what it should be.
  await db.sql(
    `INSERT INTO "AgentSession" ("id", "sessionId", "agentId", "status", "updatedAt") VALUES ('plain', 'plain', 'agent-2', 'active', now())`,
  );
  expect(await verified()).toMatchObject({ 'agent-sessions': [1, 0], agents: [0, 1] });

  await backfill();
  expect(await verified()).toEqual(CLEAN);
});

it('may be before the backfill as well', async () => {
  await seedPlain(db, 100);
  await db.sql(
    `INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "updatedAt")
     VALUES ('idle', 'user', 'n', '[]', '{}', '2024-02-01')`,
  );
  await useService();
  const written = `
    SELECT json_build_object('sessions', (SELECT json_agg(s ORDER BY "id") FROM "AgentSession" s WHERE "sessionId" IN ('new', 'child')),
      'states', (SELECT json_agg(s ORDER BY "id") FROM "ModuleState" s WHERE "version" = '2'),
      'memories', (SELECT json_agg(m ORDER BY "id") FROM "InteractionMemory" m WHERE "agentId" = 'idle')) AS it`;
  const before = await db.sql(written);
  await db.work();
  await backfill();
  expect(await verified()).toEqual(CLEAN);
  expect(await db.sql(written)).toEqual(before);
});
