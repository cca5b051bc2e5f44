import { randomUUID } from 'node:crypto';

import { expect, test } from 'vitest';

import { EnhancedSchemaService as service } from '../../src/services/enhancedSchemaService.ts';
import { atOnce, useServiceDatabase } from './fixture.ts';

const db = useServiceDatabase();

const create = (id?: string) =>
  service.createMemory({
    id,
    userId: 'user-id',
    agentId: 'agent-id',
    type: 'fact',
    content: { tea: true },
    importance: 7,
  });
const read = (memoryId: string, extra: { id?: string; occurredAt?: string } = {}) =>
  service.recordMemoryAccess({
    memoryId,
    accessType: 'read',
    accessedBy: 'agent-id',
    accessorType: 'agent',
    ...extra,
  });
const stored = (id: string) =>
  db.current.prisma.interactionMemory.findUniqueOrThrow({ where: { id } });

test('createMemory stores what it is given and fills in the rest', async () => {
  const memory = await create();
  expect(memory).toMatchObject({
    content: { tea: true },
    importance: 7,
    memoryType: 'fact',
    confidence: 1,
    sourceType: 'user_input',
    accessCount: 0,
    lastAccessedAt: null,
    verificationStatus: 'unverified',
  });
  expect(await stored(memory.id)).toEqual(memory);
});

test('createMemory names the id that is unknown or taken', async () => {
  await create('taken');
  await expect(create('taken')).rejects.toMatchObject({
    code: 'DUPLICATE',
    field: 'id',
    id: 'taken',
  });
  const memory = {
    userId: 'user-id',
    agentId: 'agent-id',
    type: 'fact',
    content: 1,
    importance: 0,
  };
  await expect(service.createMemory({ ...memory, userId: 'nobody' })).rejects.toMatchObject({
    code: 'NOT_FOUND',
    field: 'userId',
  });
  await expect(service.createMemory({ ...memory, agentId: 'nobody' })).rejects.toMatchObject({
    code: 'NOT_FOUND',
    field: 'agentId',
  });
});

test('an access is counted once, and the latest time stays', async () => {
  const { id } = await create();
  const access = { id: randomUUID(), occurredAt: '2024-02-01T00:00:00.123Z' };
  const first = await read(id, access);
  expect(first).toEqual({
    id: access.id,
    occurredAt: new Date(access.occurredAt),
    memoryId: id,
    accessType: 'read',
    accessedBy: 'agent-id',
    accessorType: 'agent',
    context: null,
    usefulness: null,
  });
  expect(await db.current.prisma.memoryAccess.findUnique({ where: { id: access.id } })).toEqual(
    first,
  );
  expect(await read(id, access)).toEqual(first);
  expect(await stored(id)).toMatchObject({ accessCount: 1, lastAccessedAt: first.occurredAt });
  await read(id, { occurredAt: '2024-01-01T00:00:00Z' });
  expect(await stored(id)).toMatchObject({ accessCount: 2, lastAccessedAt: first.occurredAt });
});

test('accesses at once are all counted, repeated ones once', async () => {
  const { id } = await create();
  const repeated = randomUUID();
  await atOnce(40, (n) => read(id, n % 2 ? { id: repeated } : {}));
  expect((await stored(id)).accessCount).toBe(21);
});

test('an access of an unknown memory is refused', async () => {
  await expect(read('nowhere')).rejects.toMatchObject({
    code: 'NOT_FOUND',
    field: 'memoryId',
    id: 'nowhere',
  });
});

test('an annotation is applied once', async () => {
  const { id: memoryId } = await create();
  const id = randomUUID();
  const annotation = await service.createMemoryAnnotation({
    id,
    memoryId,
    annotationType: 'correction',
    content: ['green'],
    createdById: 'anyone',
  });
  expect(annotation).toMatchObject({
    id,
    isApplied: false,
    appliedAt: null,
    content: ['green'],
    createdById: 'anyone',
  });
  expect(
    await service.createMemoryAnnotation({ id, memoryId, annotationType: 'x', content: 1 }),
  ).toEqual(annotation);

  const applied = await service.applyMemoryAnnotation({
    annotationId: id,
    appliedAt: '2024-01-01T00:00:00Z',
  });
  expect(applied).toEqual({
    ...annotation,
    isApplied: true,
    appliedAt: new Date('2024-01-01T00:00:00Z'),
  });
  expect(await service.applyMemoryAnnotation({ annotationId: id })).toEqual(applied);

  const born = await service.createMemoryAnnotation({
    memoryId,
    annotationType: 'note',
    content: 1,
    isApplied: true,
  });
  expect(born).toMatchObject({ isApplied: true, appliedAt: expect.any(Date) });
});

test('annotations name the memory or annotation that is unknown', async () => {
  await expect(
    service.createMemoryAnnotation({ memoryId: 'nowhere', annotationType: 'note', content: 1 }),
  ).rejects.toMatchObject({ code: 'NOT_FOUND', field: 'memoryId', id: 'nowhere' });
  const annotationId = randomUUID();
  await expect(service.applyMemoryAnnotation({ annotationId })).rejects.toMatchObject({
    code: 'NOT_FOUND',
    field: 'annotationId',
    id: annotationId,
  });
});
