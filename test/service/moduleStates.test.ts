import { randomUUID } from 'node:crypto';

import fc from 'fast-check';
import { expect, test } from 'vitest';

import { canonicalJson, sha256Hex } from '../../src/json.ts';
import { EnhancedSchemaService as service } from '../../src/services/enhancedSchemaService.ts';
import { atOnce, one, useServiceDatabase } from './fixture.ts';

const db = useServiceDatabase();

const upsert = (moduleId: string, state: NonNullable<unknown>, version = '1.0.0') =>
  service.upsertModuleState({ moduleId, state, version });

const insertPlain = (
  id: string,
  moduleId: string,
  state: unknown,
  createdAt: string,
  previousStateId?: string,
) =>
  db.current.sql(
    `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "createdAt", "updatedAt", "previousStateId")
     VALUES ($1, $2, $3, '1.0.0', $4, $4, $5)`,
    [id, moduleId, JSON.stringify(state), createdAt, previousStateId],
  );

test('the same state and version are one row, whatever the order of keys', async () => {
  const first = await service.upsertModuleState({
    moduleId: 'same',
    state: { a: 1, b: { c: [1, { d: 2, e: 3 }] } },
    version: '1.0.0',
    stateType: 'workflow_progress',
    isSnapshot: true,
    snapshotReason: 'nightly',
    expiresAt: new Date('2031-01-01T00:00:00Z'),
  });
  expect(first).toMatchObject({
    previousStateId: null,
    stateHash: sha256Hex('{"a":1,"b":{"c":[1,{"d":2,"e":3}]}}'),
    stateType: 'workflow_progress',
    isSnapshot: true,
    snapshotReason: 'nightly',
    expiresAt: new Date('2031-01-01T00:00:00Z'),
  });
  expect(await upsert('same', { b: { c: [1, { e: 3, d: 2 }] }, a: 1 })).toEqual(first);
  expect(await upsert('same', { a: 1, b: { c: [{ e: 3, d: 2 }, 1] } })).toMatchObject({
    previousStateId: first.id,
  });
});

test('another version is another state', async () => {
  const first = await upsert('version', { a: 1 });
  expect(await upsert('version', { a: 1 }, '2.0.0')).toMatchObject({
    previousStateId: first.id,
    stateHash: first.stateHash,
  });
});

test('A, B, A are three rows in one chain, however fast they come', async () => {
  const states = [];
  for (const name of ['A', 'B', 'A']) states.push(await upsert('aba', { name }));
  const [a, b, c] = states;
  expect(states.map(({ previousStateId }) => previousStateId)).toEqual([null, a!.id, b!.id]);
  expect(c!.stateHash).toBe(a!.stateHash);
  expect(a!.createdAt < b!.createdAt && b!.createdAt < c!.createdAt).toBe(true);
});

test('a state is later than the one before it even when that has a clock ahead of ours', async () => {
  await insertPlain('future', 'skewed', 1, '2090-01-01T00:00:00Z');
  const next = await upsert('skewed', 2);
  expect(next).toMatchObject({
    previousStateId: 'future',
    createdAt: new Date('2090-01-01T00:00:00.001Z'),
  });
  expect((await upsert('skewed', 3)).previousStateId).toBe(next.id);
});

test('plain rows without hash or links are followed by (createdAt, id)', async () => {
  await insertPlain('p2', 'plain', { n: 2 }, '2024-01-01T00:00:00.500Z');
  await insertPlain('p1', 'plain', { n: 1 }, '2024-01-01T00:00:00.500Z');
  await insertPlain('p0', 'plain', { n: 0 }, '2024-01-01T00:00:00.400Z');
  expect((await upsert('plain', { n: 2 })).id).toBe('p2');
  expect((await upsert('plain', { n: 3 })).previousStateId).toBe('p2');
});

test('the end of the chain is followed even where the times contradict the links', async () => {
  await insertPlain('c1', 'contrary', 1, '2024-01-02T00:00:00Z');
  await insertPlain('c2', 'contrary', 2, '2024-01-01T00:00:00Z', 'c1');
  expect((await upsert('contrary', 3)).previousStateId).toBe('c2');
});

test('callers at once never fork the chain, first state included', async () => {
  const written = await atOnce(30, (index) => upsert('contested', { index }));
  expect(new Set(written.map(({ id }) => id)).size).toBe(30);
  expect(one(written.filter(({ previousStateId }) => previousStateId === null))).toBeDefined();
  const inOrder = await db.current.prisma.moduleState.findMany({
    where: { moduleId: 'contested' },
    orderBy: [{ createdAt: 'asc' }, { id: 'asc' }],
  });
  expect(inOrder.map(({ previousStateId }) => previousStateId)).toEqual([
    null,
    ...inOrder.slice(0, -1).map(({ id }) => id),
  ]);
});

test('callers at once with one state make one row', async () => {
  const written = await atOnce(10, () => upsert('agreed', { same: true }));
  expect(new Set(written.map(({ id }) => id)).size).toBe(1);
});

test('any JSON is stored as it is, and its hash is that of the stored row', async () => {
  const json = fc
    .jsonValue({ maxDepth: 4, stringUnit: 'binary' })
    .filter((value) => value !== null);
  let run = 0;
  const roundTrip = async (state: unknown) => {
    const { id, stateHash } = await upsert(`any-${run++}`, state as NonNullable<unknown>);
    const stored = await db.current.prisma.moduleState.findUniqueOrThrow({ where: { id } });
    const clean = JSON.parse(JSON.stringify(state).replaceAll('\\u0000', '\uFFFD'));
    expect(canonicalJson(stored.state)).toBe(canonicalJson(clean));
    expect(stateHash).toBe(sha256Hex(canonicalJson(stored.state)));
  };
  for (const odd of [
    // Prisma alone would round this one.
    1.0009253853205131e-8,
    { $type: 'DateTime', value: '2024' },
    { a: undefined, d: new Date(0) },
    [undefined, [[]]],
    'text',
    false,
    0,
    -0,
    5e-324,
    1.7e308,
  ]) {
    await roundTrip(odd);
  }
  await fc.assert(fc.asyncProperty(json, roundTrip), { numRuns: 200 });
});

test('transitions are stored exactly once by their id', async () => {
  const { id: stateId } = await upsert('transition', {});
  const id = randomUUID();
  const transition = await service.recordStateTransition({
    id,
    stateId,
    triggerType: 'user_action',
    triggerId: 'button',
    transitionData: {},
    previousValues: { step: 1 },
    occurredAt: '2024-01-01T00:00:00+01:00',
  });
  expect(transition).toEqual({
    id,
    stateId,
    triggerType: 'user_action',
    triggerId: 'button',
    transitionData: {},
    previousValues: { step: 1 },
    newValues: null,
    occurredAt: new Date('2023-12-31T23:00:00Z'),
  });
  expect(
    await service.recordStateTransition({ id, stateId, triggerType: 'x', transitionData: 1 }),
  ).toEqual(transition);
  await expect(
    service.recordStateTransition({ stateId: 'nowhere', triggerType: 'x', transitionData: 1 }),
  ).rejects.toMatchObject({ code: 'NOT_FOUND', field: 'stateId', id: 'nowhere' });
});
