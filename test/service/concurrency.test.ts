import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { openDatabase, type Database } from '../../src/database/client.ts';
import { ConflictError } from '../../src/errors.ts';
import { NO_PRODUCER } from '../../src/ledger/ledger.ts';
import { createAgentVersion, updateAgentMetrics } from '../../src/services/agents.ts';
import { createMemory, recordMemoryAccess } from '../../src/services/memories.ts';
import { recordStateTransition, upsertModuleState } from '../../src/services/moduleStates.ts';
import { createSessionEvent, createSessionMetric } from '../../src/services/sessionEvents.ts';
import { createSession, setParentSession } from '../../src/services/sessions.ts';
import { encodeEvent } from '../../src/queues/eventEncoding.ts';
import type { EventKind } from '../../src/queues/events.ts';
import type { Batch } from '../../src/workers/batch.ts';
import { createWrite } from '../../src/workers/writers/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { listOf } from '../support/events.ts';
import { atOnce, createUserAndAgent, one } from './fixture.ts';

const HERE = 'datname = current_database()';
const WAITING = `SELECT FROM pg_stat_activity WHERE ${HERE} AND wait_event_type = 'Lock'`;

const CALLERS = 10;
const ROUNDS = 10;
const MEMORIES = ['m0', 'm1', 'm2'];
const SESSIONS = ['s0', 's1', 's2'];

let db: TestDatabase;
let clients: Database[];
beforeAll(async () => {
  db = await createTestDatabase();
  await createUserAndAgent(db);
  // A process each would be no different: every caller has one connection of its own.
  clients = Array.from({ length: CALLERS }, () => openDatabase(db.url, { poolSize: 1 }));
  for (const id of MEMORIES) {
    await createMemory(db.prisma, {
      id,
      userId: 'user-id',
      agentId: 'agent-id',
      type: 'fact',
      content: 1,
      importance: 1,
    });
  }
  for (const id of SESSIONS) await createSession(db.prisma, { id, sessionId: `name-${id}` });
});
afterAll(async () => {
  await Promise.all(clients.map(({ prisma }) => prisma.$disconnect()));
  await db.drop();
});

const batchOf = (kind: EventKind, events: object[]): Batch => [
  {
    events: listOf(
      kind,
      events.map((event) => encodeEvent(kind, event)),
    ),
    from: 0,
    to: events.length,
    producer: NO_PRODUCER,
  },
];

const shuffled = <T>(items: T[]): T[] => items.toSorted(() => Math.random() - 0.5);

test('callers and event writers on the same rows: nothing is lost, forked or deadlocked', async () => {
  const accessIds = Array.from({ length: ROUNDS }, () => randomUUID());
  const { id: stateId } = await upsertModuleState(db.prisma, {
    moduleId: 'module',
    state: 'first',
    version: '1',
  });

  await atOnce(CALLERS, async (caller) => {
    const database = clients[caller]!;
    const { prisma } = database;
    const writerId = randomUUID();
    for (let round = 0; round < ROUNDS; round++) {
      const n = `${caller}-${round}`;
      // Every caller delivers the round's access, so the writers and the calls meet in it.
      const id = accessIds[round]!;
      const access = { accessType: 'read', accessedBy: 'agent-id', accessorType: 'agent' };
      const events = shuffled(MEMORIES).map((memoryId, index) => ({
        ...access,
        memoryId,
        id: index === 0 ? randomUUID() : id,
        occurredAt: new Date().toISOString(),
      }));
      const metric = { metricType: 'success_rate', metricValue: 0.5 };
      const steps = shuffled<() => Promise<unknown>>([
        () => upsertModuleState(prisma, { moduleId: 'module', state: { n }, version: '1' }),
        () =>
          createAgentVersion(prisma, {
            agentId: 'agent-id',
            versionNumber: n,
            changes: {},
            createdById: 'user-id',
            isActive: true,
          }),
        () => recordMemoryAccess(prisma, { ...access, id, memoryId: 'm0' }),
        () => recordMemoryAccess(prisma, { ...access, memoryId: 'm0' }),
        () =>
          createWrite(
            database,
            'memory-access',
            writerId,
          )(batchOf('memory-access', events.slice(0, 2))),
        () =>
          updateAgentMetrics(prisma, {
            agentId: 'agent-id',
            metrics: [metric, { ...metric, metricType: 'other' }],
          }),
        () =>
          createSession(prisma, {
            sessionId: n,
            userId: 'user-id',
            agentId: 'agent-id',
            parentSessionId: shuffled(SESSIONS)[0],
          }),
        () => createSessionEvent(prisma, { sessionId: 'name-s0', eventType: 'e', eventData: {} }),
        () => createSessionMetric(prisma, { sessionId: 's1', metricType: 'm', metricValue: 1 }),
        () => recordStateTransition(prisma, { stateId, triggerType: 't', transitionData: {} }),
        () =>
          setParentSession(prisma, {
            sessionId: shuffled(SESSIONS)[0]!,
            parentSessionId: shuffled(SESSIONS)[0]!,
          }).catch(onlyConflict),
        () =>
          createWrite(
            database,
            'metrics',
            writerId,
          )(
            batchOf(
              'metrics',
              shuffled(SESSIONS).map((sessionId) => ({
                id: randomUUID(),
                occurredAt: new Date().toISOString(),
                scope: 'session',
                sessionId,
                metricType: 'm',
                metricValue: 1,
              })),
            ),
          ),
        () =>
          createWrite(
            database,
            'session-event',
            writerId,
          )(
            batchOf(
              'session-event',
              shuffled(SESSIONS.slice(1)).map((sessionId) => ({
                id: randomUUID(),
                occurredAt: new Date().toISOString(),
                sessionId: shuffled([sessionId, `name-${sessionId}`])[0],
                eventType: 'written',
                eventData: {},
                sequence: -1,
              })),
            ),
          ),
      ]);
      for (const step of steps) await step();
    }
  });

  const calls = CALLERS * ROUNDS;
  const states = await db.prisma.moduleState.findMany({
    orderBy: [{ createdAt: 'asc' }, { id: 'asc' }],
  });
  expect(states).toHaveLength(calls + 1);
  expect(states.map(({ previousStateId }) => previousStateId)).toEqual([
    null,
    ...states.slice(0, -1).map(({ id }) => id),
  ]);

  expect(
    one(await db.sql('SELECT count(*)::int AS n FROM "AgentVersion" WHERE "isActive"')).n,
  ).toBe(1);
  expect(one(await db.sql('SELECT count(*)::int AS n FROM "AgentVersion"')).n).toBe(calls);

  const counts = await db.sql(`
    SELECT m."accessCount", count(a.*)::int AS rows, m."lastAccessedAt" = max(a."occurredAt") AS latest
    FROM "InteractionMemory" m JOIN "MemoryAccess" a ON a."memoryId" = m."id" GROUP BY m."id"`);
  for (const { accessCount, rows, latest } of counts) {
    expect(accessCount).toBe(rows);
    expect(latest).toBe(true);
  }
  expect(
    one(
      await db.sql('SELECT count(*)::int AS n FROM "MemoryAccess" WHERE "id" = ANY ($1)', [
        accessIds,
      ]),
    ).n,
  ).toBe(ROUNDS);
  expect(one(await db.sql('SELECT count(*)::int AS n FROM "MemoryAccess"')).n).toBe(
    2 * calls + ROUNDS,
  );

  const agent = await db.prisma.aI_Agent.findUniqueOrThrow({ where: { id: 'agent-id' } });
  expect(agent).toMatchObject({ totalSessions: calls, successRate: 0.5 });
  const sequences = await db.sql(
    'SELECT "sequence" FROM "SessionEvent" WHERE "sequence" > 0 ORDER BY "sequence"',
  );
  expect(sequences.map(({ sequence }) => sequence)).toEqual(
    Array.from({ length: calls }, (_, n) => n + 1),
  );
  const written = await db.sql(
    `SELECT "sessionId" FROM "SessionEvent" WHERE "eventType" = 'written'`,
  );
  expect(written).toHaveLength(2 * calls);
  const parents = new Map(
    (await db.prisma.agentSession.findMany()).map((row) => [row.id, row.parentSessionId]),
  );
  for (const start of SESSIONS) {
    let steps = 0;
    for (let id = parents.get(start); id; id = parents.get(id))
      expect(++steps).toBeLessThan(SESSIONS.length);
  }
});

function onlyConflict(error: Error): void {
  if (!(error instanceof ConflictError)) throw error;
}

test('a call that loses to a deadlock or a serialization failure is tried again', async () => {
  // A trigger that gives up the first two tries the way PostgreSQL does; a sequence outlives a rollback.
  await db.sql(`
    CREATE SEQUENCE tries;
    CREATE FUNCTION give_up() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE try int := nextval('tries');
    BEGIN
      IF try = 1 THEN RAISE EXCEPTION 'lost' USING ERRCODE = '40P01'; END IF;
      IF try = 2 THEN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END IF;
      RETURN NEW;
    END $$;
    CREATE TRIGGER give_up BEFORE INSERT ON "MemoryAccess" FOR EACH ROW EXECUTE FUNCTION give_up();
    CREATE TRIGGER give_up BEFORE INSERT ON "ModuleState" FOR EACH ROW EXECUTE FUNCTION give_up();`);
  const access = { memoryId: 'm1', accessType: 'read', accessedBy: 'a', accessorType: 'agent' };
  const before = await db.prisma.interactionMemory.findUniqueOrThrow({ where: { id: 'm1' } });
  await recordMemoryAccess(db.prisma, access);
  const after = await db.prisma.interactionMemory.findUniqueOrThrow({ where: { id: 'm1' } });
  expect(after.accessCount).toBe(before.accessCount + 1);
  expect(one(await db.sql('SELECT last_value::int AS tries FROM tries')).tries).toBe(3);

  await db.sql(`ALTER SEQUENCE tries RESTART`);
  const state = await upsertModuleState(db.prisma, { moduleId: 'retried', state: 1, version: '1' });
  expect(await db.sql('SELECT "id" FROM "ModuleState" WHERE "moduleId" = $1', ['retried'])).toEqual(
    [{ id: state.id }],
  );
});

test('a writer that takes no lock cannot make the chain fork: the call looks again', async () => {
  await db.sql('DROP TRIGGER give_up ON "ModuleState"');
  const first = await upsertModuleState(db.prisma, { moduleId: 'rude', state: 1, version: '1' });
  const rude = db.prisma.$transaction(async (tx) => {
    const row = {
      moduleId: 'rude',
      state: 2,
      version: '1',
      previousStateId: first.id,
      createdAt: new Date(first.createdAt.getTime() + 1),
    };
    const { id } = await tx.moduleState.create({ data: row });
    const call = upsertModuleState(clients[0]!.prisma, {
      moduleId: 'rude',
      state: 3,
      version: '1',
    });
    await expect.poll(() => db.sql(WAITING)).toHaveLength(1);
    return { id, call };
  });
  const { id, call } = await rude.then(async ({ id, call }) => ({ id, call: await call }));
  expect(call.previousStateId).toBe(id);
});

test('an event writer that holds the memory and brings the same access does not meet the call in a circle', async () => {
  const id = randomUUID();
  const access = { id, memoryId: 'm2', accessType: 'read', accessedBy: 'a', accessorType: 'agent' };
  const call = await db.prisma.$transaction(async (tx) => {
    await tx.$executeRaw`SELECT 1 FROM "InteractionMemory" WHERE "id" = 'm2' FOR NO KEY UPDATE`;
    const call = recordMemoryAccess(clients[0]!.prisma, access);
    await expect.poll(() => db.sql(WAITING)).toHaveLength(1);
    await tx.memoryAccess.create({ data: { ...access, context: 'from the writer' } });
    return { result: call };
  });
  expect(await call.result).toMatchObject({ id, context: 'from the writer' });
});

test('the database saw no deadlock in all of this', async () => {
  // A connection hands in its counters at the latest when it ends.
  await Promise.all([db, ...clients].map(({ prisma }) => prisma.$disconnect()));
  await expect
    .poll(() =>
      db.sql(`SELECT FROM pg_stat_activity WHERE ${HERE} AND application_name = 'annals'`),
    )
    .toHaveLength(0);
  expect(await db.sql(`SELECT "deadlocks"::int FROM pg_stat_database WHERE ${HERE}`)).toEqual([
    { deadlocks: 0 },
  ]);
});
