import { randomUUID } from 'node:crypto';

import { expect, test } from 'vitest';

import { ConflictError, DuplicateError, NotFoundError } from '../../src/errors.ts';
import { EnhancedSchemaService as service } from '../../src/services/enhancedSchemaService.ts';
import { atOnce, one, useServiceDatabase } from './fixture.ts';

const db = useServiceDatabase();

const create = (sessionId: string, parentSessionId?: string) =>
  service.createSession({ sessionId, parentSessionId });

test('createSession stores what it is given and fills in the rest', async () => {
  const session = await service.createSession({
    id: 'own-id',
    sessionId: 'full',
    userId: 'user-id',
    context: { goal: 'test' },
    startedAt: '2024-01-02T03:04:05.678+02:00',
    sessionTags: ['a', 'b'],
    businessContext: { team: 7 },
    qualityScore: 1,
  });
  expect(session).toMatchObject({
    id: 'own-id',
    status: 'active',
    startedAt: new Date('2024-01-02T01:04:05.678Z'),
    endedAt: null,
    sessionTags: ['a', 'b'],
    businessContext: { team: 7 },
    learningOutcomes: null,
    qualityScore: 1,
  });
  expect(await db.current.prisma.agentSession.findUnique({ where: { id: 'own-id' } })).toEqual(
    session,
  );
});

test('createSession counts itself into its agent, and only when it succeeds', async () => {
  const agent = () => db.current.prisma.aI_Agent.findUniqueOrThrow({ where: { id: 'agent-id' } });
  const late = new Date('2030-01-01T00:00:00Z');
  await service.createSession({ sessionId: 'late', agentId: 'agent-id', startedAt: late });
  await service.createSession({ sessionId: 'early', agentId: 'agent-id', startedAt: new Date(0) });
  expect(await agent()).toMatchObject({ totalSessions: 2, lastActiveAt: late });
  await expect(service.createSession({ sessionId: 'late', agentId: 'agent-id' })).rejects.toThrow(
    DuplicateError,
  );
  expect(await agent()).toMatchObject({ totalSessions: 2, lastActiveAt: late });
});

test('of many that create one session, one does, and it is counted once', async () => {
  const { totalSessions } = await db.current.prisma.aI_Agent.findUniqueOrThrow({
    where: { id: 'agent-id' },
  });
  const outcomes = await Promise.allSettled(
    Array.from({ length: 10 }, () =>
      service.createSession({ sessionId: 'contested', agentId: 'agent-id' }),
    ),
  );
  expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  for (const outcome of outcomes)
    if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(DuplicateError);
  const agent = await db.current.prisma.aI_Agent.findUniqueOrThrow({ where: { id: 'agent-id' } });
  expect(agent.totalSessions).toBe(totalSessions + 1);
});

test('createSession names the reference that is unknown or taken', async () => {
  const parent = await create('a-parent');
  await expect(service.createSession({ sessionId: 'x', userId: 'nobody' })).rejects.toMatchObject({
    code: 'NOT_FOUND',
    field: 'userId',
    id: 'nobody',
  });
  await expect(service.createSession({ sessionId: 'x', agentId: 'nobody' })).rejects.toMatchObject({
    code: 'NOT_FOUND',
    field: 'agentId',
    id: 'nobody',
  });
  await expect(create('x', 'nowhere')).rejects.toMatchObject({
    code: 'NOT_FOUND',
    field: 'parentSessionId',
  });
  await expect(create('x', 'a-parent')).rejects.toThrow(
    `that is a sessionId, and its session has the id "${parent.id}"`,
  );
  await expect(service.createSession({ id: parent.id, sessionId: 'x' })).rejects.toMatchObject({
    code: 'DUPLICATE',
    field: 'id',
    id: parent.id,
  });
  await expect(
    service.createSession({ id: 'me', sessionId: 'x', parentSessionId: 'me' }),
  ).rejects.toThrow(ConflictError);
  expect(await db.current.sql(`SELECT FROM "AgentSession" WHERE "sessionId" = 'x'`)).toHaveLength(
    0,
  );
});

test('a session is never moved below itself or a descendant', async () => {
  const top = await create('top');
  const middle = await create('middle', top.id);
  const bottom = await create('bottom', middle.id);
  const move = (sessionId: string, parentSessionId: string | null) =>
    service.setParentSession({ sessionId, parentSessionId });
  await expect(move(top.id, top.id)).rejects.toThrow(ConflictError);
  await expect(move(top.id, middle.id)).rejects.toThrow(ConflictError);
  await expect(move('top', bottom.id)).rejects.toMatchObject({
    field: 'parentSessionId',
    id: bottom.id,
  });
  expect((await move('bottom', top.id)).parentSessionId).toBe(top.id);
  expect((await move('middle', bottom.id)).parentSessionId).toBe(bottom.id);
  expect((await move('bottom', null)).parentSessionId).toBeNull();
  await expect(move('nowhere', null)).rejects.toThrow(NotFoundError);
  await expect(move('top', 'nowhere')).rejects.toThrow(NotFoundError);
});

test('moves at once never form a circle', async () => {
  for (let round = 0; round < 5; round++) {
    const ring = await atOnce(6, (index) => create(`ring-${round}-${index}`));
    // Each below the next, the last below the first: all of them would be a circle.
    const moves = await Promise.allSettled(
      ring.map(({ id }, index) =>
        service.setParentSession({
          sessionId: id,
          parentSessionId: ring[(index + 1) % ring.length]!.id,
        }),
      ),
    );
    const refused = moves.filter((move) => move.status === 'rejected');
    expect(refused).toHaveLength(1);
    expect(refused[0]!.reason).toBeInstanceOf(ConflictError);
  }
});

test('endSession keeps the first end and adds what comes in later', async () => {
  const { id } = await create('ending');
  const ended = await service.endSession({
    sessionId: 'ending',
    status: 'failed',
    endedAt: '2024-05-01T00:00:00Z',
  });
  expect(ended).toMatchObject({
    id,
    status: 'failed',
    endedAt: new Date('2024-05-01T00:00:00Z'),
    sessionTags: [],
  });
  const again = await service.endSession({
    sessionId: id,
    qualityScore: 0.5,
    learningOutcomes: ['tea'],
  });
  expect(again).toMatchObject({
    status: 'failed',
    endedAt: ended.endedAt,
    qualityScore: 0.5,
    learningOutcomes: ['tea'],
  });
  expect(await service.endSession({ sessionId: id })).toEqual({
    ...again,
    updatedAt: expect.any(Date),
  });
  await create('plain');
  expect(await service.endSession({ sessionId: 'plain' })).toMatchObject({ status: 'completed' });
  await expect(service.endSession({ sessionId: 'nowhere' })).rejects.toThrow(NotFoundError);
});

test('a session is found by its id before its name', async () => {
  const first = await service.createSession({ id: 'shared', sessionId: 'first' });
  await service.createSession({ id: 'other', sessionId: 'shared' });
  const metric = { metricType: 'm', metricValue: 1 };
  expect((await service.createSessionMetric({ sessionId: 'shared', ...metric })).sessionId).toBe(
    first.id,
  );
  expect((await service.createSessionMetric({ sessionId: 'first', ...metric })).sessionId).toBe(
    first.id,
  );
  expect(
    (await service.createSessionEvent({ sessionId: 'shared', eventType: 'e', eventData: 1 }))
      .sessionId,
  ).toBe('shared');
  expect((await service.endSession({ sessionId: 'shared' })).id).toBe('shared');
});

test('metrics and events are stored exactly once by their id', async () => {
  const { id: sessionId } = await create('once');
  const [metricId, eventId] = [randomUUID(), randomUUID()];
  const metric = await service.createSessionMetric({
    id: metricId.toUpperCase(),
    sessionId: 'once',
    metricType: 'latency_ms',
    metricValue: -1.5e300,
    metadata: { n: null },
    occurredAt: new Date(1),
  });
  expect(metric).toMatchObject({
    id: metricId,
    sessionId,
    metricValue: -1.5e300,
    metadata: { n: null },
    occurredAt: new Date(1),
  });
  const event = await service.createSessionEvent({
    id: eventId,
    sessionId: 'once',
    eventType: 'e',
    eventData: [1],
    duration: 2.5,
  });
  expect(event).toMatchObject({ id: eventId, sessionId, sequence: 1, duration: 2.5 });

  expect(
    await service.createSessionMetric({
      id: metricId,
      sessionId,
      metricType: 'other',
      metricValue: 2,
    }),
  ).toEqual(metric);
  expect(
    await service.createSessionEvent({ id: eventId, sessionId, eventType: 'other', eventData: 2 }),
  ).toEqual(event);
  const same = randomUUID();
  const rows = await atOnce(8, (n) =>
    service.createSessionMetric({ id: same, sessionId, metricType: 'race', metricValue: n }),
  );
  expect(new Set(rows.map(({ metricValue }) => metricValue)).size).toBe(1);
  expect(
    one(
      await db.current.sql(
        'SELECT count(*)::int AS n FROM "SessionMetric" WHERE "sessionId" = $1',
        [sessionId],
      ),
    ).n,
  ).toBe(2);
});

test('events at once get different places, whatever place was given before', async () => {
  const { id: sessionId } = await create('sequence');
  await service.createSessionEvent({ sessionId, eventType: 'e', eventData: {}, sequence: 41 });
  const events = await atOnce(20, () =>
    service.createSessionEvent({ sessionId, eventType: 'e', eventData: {} }),
  );
  expect(events.map(({ sequence }) => sequence).sort((a, b) => a - b)).toEqual(
    Array.from({ length: 20 }, (_, n) => 42 + n),
  );
});

test('metrics and events of an unknown session are refused', async () => {
  const unknown = { code: 'NOT_FOUND', field: 'sessionId', id: 'nowhere' };
  await expect(
    service.createSessionMetric({ sessionId: 'nowhere', metricType: 'm', metricValue: 1 }),
  ).rejects.toMatchObject(unknown);
  await expect(
    service.createSessionEvent({ sessionId: 'nowhere', eventType: 'e', eventData: 1 }),
  ).rejects.toMatchObject(unknown);
});

test('rows of a plain database, whose lists are null, come back as Prisma has them', async () => {
  await db.current.sql(
    `INSERT INTO "AgentSession" ("id", "sessionId", "status", "updatedAt") VALUES ('plain-id', 'plain-name', 'active', now())`,
  );
  const ended = await service.endSession({ sessionId: 'plain-name' });
  expect(ended).toEqual(
    await db.current.prisma.agentSession.findUnique({ where: { id: 'plain-id' } }),
  );
});
