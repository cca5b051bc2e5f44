import { setTimeout as sleep } from 'node:timers/promises';

import pg from 'pg';
import { beforeEach, expect, test } from 'vitest';

import { EnhancedSchemaService as service } from '../../src/services/enhancedSchemaService.ts';
import { expireRows } from '../../src/services/expiry.ts';
import { useServiceDatabase } from './fixture.ts';

const db = useServiceDatabase();

const PAST = new Date('2020-01-01T00:00:00Z');
const FUTURE = new Date('2999-01-01T00:00:00Z');

beforeEach(() => db.current.sql('TRUNCATE "ModuleState", "InteractionMemory" CASCADE'));

const memory = (id: string, expiresAt?: Date) =>
  service.createMemory({
    id,
    userId: 'user-id',
    agentId: 'agent-id',
    type: 'fact',
    content: { id },
    importance: 1,
    expiresAt: expiresAt ?? null,
  });

const state = (step: number, expiresAt?: Date) =>
  service.upsertModuleState({
    moduleId: 'module',
    state: { step },
    version: '1',
    expiresAt: expiresAt ?? null,
  });

const memories = async () =>
  (await db.current.prisma.interactionMemory.findMany({ orderBy: { id: 'asc' } })).map(
    ({ id }) => id,
  );

const chain = async () =>
  (await db.current.prisma.moduleState.findMany({ orderBy: { createdAt: 'asc' } })).map(
    ({ id, previousStateId }) => ({ id, previousStateId }),
  );

/** Runs `work` while another transaction has done `sql` and not committed it. */
async function during<T>(sql: string, work: (commit: () => Promise<void>) => Promise<T>) {
  const holder = new pg.Client({ connectionString: db.current.url });
  await holder.connect();
  try {
    await holder.query('BEGIN');
    await holder.query(sql);
    return await work(async () => void (await holder.query('COMMIT')));
  } finally {
    await holder.end();
  }
}

test('what has expired goes, with what refers to it, and nothing else', async () => {
  for (let n = 0; n < 25; n++) await memory(`old-${n}`, PAST);
  await memory('later', FUTURE);
  await memory('always');
  await service.recordMemoryAccess({
    memoryId: 'old-3',
    accessType: 'read',
    accessedBy: 'agent-id',
    accessorType: 'agent',
  });
  expect(await expireRows(db.current.prisma, { chunkRows: 10 })).toEqual({
    moduleStates: 0,
    memories: 25,
  });
  expect(await memories()).toEqual(['always', 'later']);
  expect(await db.current.prisma.memoryAccess.count()).toBe(0);
});

test('a chain that loses states begins with the first that is left', async () => {
  await state(1, PAST);
  await state(2, PAST);
  const third = await state(3);
  const fourth = await state(4, PAST);
  const fifth = await state(5, FUTURE);
  expect(await expireRows(db.current.prisma)).toEqual({ moduleStates: 3, memories: 0 });
  expect(await chain()).toEqual([
    { id: third.id, previousStateId: null },
    { id: fifth.id, previousStateId: null },
  ]);
  expect(fourth.previousStateId).toBe(third.id);
  expect((await state(6)).previousStateId).toBe(fifth.id);
});

test('what is in use is left for the next time, and nobody waits', async () => {
  await memory('free', PAST);
  await memory('held', PAST);
  const first = await state(1, PAST);
  const second = await state(2);
  const lock = `SELECT FROM "InteractionMemory" WHERE "id" = 'held' FOR KEY SHARE;
    SELECT FROM "ModuleState" WHERE "id" = '${second.id}' FOR KEY SHARE`;
  await during(lock, async () => {
    expect(await expireRows(db.current.prisma)).toEqual({ moduleStates: 0, memories: 1 });
  });
  expect(await chain()).toContainEqual({ id: second.id, previousStateId: first.id });
  expect(await expireRows(db.current.prisma)).toEqual({ moduleStates: 1, memories: 1 });
});

test('a state whose predecessor expires while it is written follows the one before that', async () => {
  const first = await state(1);
  const second = await state(2, PAST);
  await during(`DELETE FROM "ModuleState" WHERE "id" = '${second.id}'`, async (commit) => {
    const third = state(3);
    const waiting = `SELECT FROM pg_stat_activity
      WHERE datname = current_database() AND wait_event_type = 'Lock'`;
    while ((await db.current.sql(waiting)).length === 0) await sleep(10);
    await commit();
    expect((await third).previousStateId).toBe(first.id);
  });
});
