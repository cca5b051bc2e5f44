import { createServer } from 'node:net';

import { afterEach, expect, test } from 'vitest';

import { createPrismaClient } from '../../src/database/client.ts';
import { InvalidArgumentError, UnavailableError } from '../../src/errors.ts';
import { EnhancedSchemaService as service } from '../../src/services/enhancedSchemaService.ts';
import { createTestDatabase } from '../support/database.ts';
import { createUserAndAgent, useServiceDatabase } from './fixture.ts';

const db = useServiceDatabase();
afterEach(() => {
  service.use(db.current.prisma);
});

const memory = {
  userId: 'user-id',
  agentId: 'agent-id',
  type: 'fact',
  content: {},
  importance: 0.5,
};
const access = { memoryId: 'm', accessType: 'read', accessedBy: 'a', accessorType: 'agent' };
const state = { moduleId: 'm', state: {}, version: '1' };

// What the compiler would refuse, and callers in plain JavaScript send all the same.
const faults: [
  name: string,
  call: (s: any) => Promise<unknown>,
  field: unknown,
  message: string,
][] = [
  [
    'nothing at all',
    (s) => s.createSession(),
    '',
    'createSession: got nothing; takes an object with id, sessionId',
  ],
  [
    'no required field',
    (s) => s.createSession({}),
    'sessionId',
    'sessionId: got nothing; takes 1 to 256 characters',
  ],
  [
    'a typo',
    (s) => s.createSession({ sessionId: 's', sesionTags: [] }),
    'sesionTags',
    'sesionTags: is not a field; takes id, sessionId',
  ],
  [
    'a wrong type',
    (s) => s.createSession({ sessionId: 7 }),
    'sessionId',
    'sessionId: got 7; takes 1 to 256 characters',
  ],
  [
    'a wrong item',
    (s) => s.createSession({ sessionId: 's', sessionTags: ['a', 1] }),
    'sessionTags[1]',
    'sessionTags[1]: got 1;',
  ],
  [
    'a text as list',
    (s) => s.createSession({ sessionId: 's', sessionTags: 'a' }),
    'sessionTags',
    'got "a"; takes a list of strings',
  ],
  [
    'a score above 1',
    (s) => s.endSession({ sessionId: 's', qualityScore: 1.5 }),
    'qualityScore',
    'qualityScore: got 1.5; takes a number from 0 to 1',
  ],
  [
    'a score below 0',
    (s) => s.recordMemoryAccess({ ...access, usefulness: -0.1 }),
    'usefulness',
    'got -0.1; takes a number from 0 to 1',
  ],
  [
    'NaN',
    (s) => s.createMemory({ ...memory, importance: NaN }),
    'importance',
    'importance: got NaN; takes a finite number',
  ],
  [
    'Infinity within JSON',
    (s) => s.upsertModuleState({ ...state, state: { a: [1, -Infinity] } }),
    'state.a[1]',
    'state.a[1]: got -Infinity',
  ],
  [
    'a bigint within JSON',
    (s) => s.createMemory({ ...memory, content: { n: 1n } }),
    'content.n',
    'content.n: got a bigint',
  ],
  [
    'a circle',
    (s) => {
      const circle: any[] = [];
      circle.push(circle);
      return s.createMemory({ ...memory, content: circle });
    },
    expect.stringContaining('content[0]'),
    'a circle',
  ],
  [
    'null for JSON',
    (s) => s.upsertModuleState({ ...state, state: null }),
    'state',
    'state: got null; takes a JSON value other than null',
  ],
  [
    'what prints as null',
    (s) => s.upsertModuleState({ ...state, state: new Date(NaN) }),
    'state',
    'state: got an invalid Date; takes a JSON value other than null',
  ],
  [
    'a time without zone',
    (s) => s.recordMemoryAccess({ ...access, occurredAt: '2024-01-01T00:00:00' }),
    'occurredAt',
    'takes a Date, or an ISO 8601 text with a zone',
  ],
  [
    'an invalid Date',
    (s) => s.recordMemoryAccess({ ...access, occurredAt: new Date(NaN) }),
    'occurredAt',
    'got an invalid Date',
  ],
  [
    'a year PostgreSQL has not',
    (s) => s.recordMemoryAccess({ ...access, occurredAt: new Date(-1e15) }),
    'occurredAt',
    'in the years 1 to 9999',
  ],
  [
    'an id that is no uuid',
    (s) => s.recordMemoryAccess({ ...access, id: 'mine' }),
    'id',
    'id: got "mine"; takes a uuid',
  ],
  [
    'a fraction as place',
    (s) => s.createSessionEvent({ sessionId: 's', eventType: 'e', eventData: 1, sequence: 1.5 }),
    'sequence',
    'got 1.5; takes a whole number',
  ],
  [
    'a place beyond integer',
    (s) =>
      s.createSessionEvent({ sessionId: 's', eventType: 'e', eventData: 1, sequence: 2 ** 31 }),
    'sequence',
    'takes a whole number',
  ],
  [
    'a negative duration',
    (s) => s.createSessionEvent({ sessionId: 's', eventType: 'e', eventData: 1, duration: -1 }),
    'duration',
    'takes milliseconds, 0 or more',
  ],
  [
    'a nested typo',
    (s) =>
      s.updateAgentMetrics({
        agentId: 'a',
        metrics: [{ metricType: 't', metricValue: 1, unit: 's' }],
      }),
    'metrics[0].unit',
    'metrics[0].unit: is not a field',
  ],
  [
    'no metric',
    (s) => s.updateAgentMetrics({ agentId: 'a' }),
    'metrics',
    'takes at least one metric or a successRate',
  ],
  [
    'a success rate above 1',
    (s) =>
      s.updateAgentMetrics({
        agentId: 'a',
        metrics: [{ metricType: 'success_rate', metricValue: 95 }],
      }),
    'metrics[0].metricValue',
    'got 95; a success_rate takes a number from 0 to 1',
  ],
  [
    'no metric value',
    (s) => s.createSessionMetric({ sessionId: 's', metricType: 't' }),
    'metricValue',
    'metricValue: got nothing; takes a finite number',
  ],
  [
    'a text for a flag',
    (s) => s.createAgentVersion({ agentId: 'a', versionNumber: '1', changes: {}, isActive: 'yes' }),
    'isActive',
    'got "yes"; takes true or false',
  ],
  [
    'an empty name',
    (s) => s.createAgentVersion({ agentId: 'a', versionNumber: '', changes: {} }),
    'versionNumber',
    'takes 1 to 256 characters',
  ],
  [
    'no data',
    (s) => s.recordStateTransition({ stateId: 's', triggerType: 't' }),
    'transitionData',
    'transitionData: got nothing',
  ],
  [
    'no content',
    (s) => s.createMemoryAnnotation({ memoryId: 'm', annotationType: 't' }),
    'content',
    'content: got nothing',
  ],
  [
    'no parent',
    (s) => s.setParentSession({ sessionId: 's' }),
    'parentSessionId',
    'parentSessionId: got nothing',
  ],
  [
    'no annotation',
    (s) => s.applyMemoryAnnotation({}),
    'annotationId',
    'annotationId: got nothing; takes a uuid',
  ],
];

test.each(faults)('%s is refused', async (_name, call, field, message) => {
  const error = await call(service).then(
    () => 'accepted',
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(InvalidArgumentError);
  expect(error).toMatchObject({ code: 'ARGUMENT_INVALID', retryable: false, field });
  expect((error as Error).message).toContain(message);
});

test('all faults are named at once', async () => {
  const call = service.createMemory({ ...memory, userId: '', confidence: 2 });
  await expect(call).rejects.toThrow(
    /^createMemory: userId: got nothing; .*\n {2}confidence: got 2; /,
  );
});

test('what PostgreSQL cannot store is replaced, in texts, keys and lists', async () => {
  const session = await service.createSession({
    sessionId: 'odd\0',
    sessionPurpose: '\ud800 lone',
    sessionTags: ['a\0b'],
    context: { 'key\0': ['\udfff', '\u{1F600} whole'] },
  });
  expect(session).toMatchObject({
    sessionId: 'odd\uFFFD',
    sessionPurpose: '\uFFFD lone',
    sessionTags: ['a\uFFFDb'],
    context: { 'key\uFFFD': ['\uFFFD', '\u{1F600} whole'] },
  });
  await service.createSessionEvent({ sessionId: 'odd\0', eventType: 'e\0', eventData: '\0' });
});

test('an unreachable or silent server is unavailable, and that is worth a repetition', async () => {
  const silent = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => silent.once('listening', resolve));
  const { port } = silent.address() as { port: number };
  for (const url of [
    'postgresql://nobody@127.0.0.1:1/x',
    `postgresql://nobody@127.0.0.1:${port}/x`,
  ]) {
    const prisma = createPrismaClient(url, { connectTimeoutMs: 300 });
    service.use(prisma);
    const calls = [
      service.createMemory(memory),
      service.endSession({ sessionId: 's' }),
      service.createSessionMetric({ sessionId: 's', metricType: 'm', metricValue: 1 }),
    ];
    for (const outcome of await Promise.allSettled(calls)) {
      expect(outcome).toMatchObject({
        status: 'rejected',
        reason: { code: 'UNAVAILABLE', retryable: true },
      });
    }
    await prisma.$disconnect();
  }
  silent.close();
});

test('a connection that is cut off is unavailable, and the next call goes on', async () => {
  await service.createMemory({ ...memory, id: 'cut' });
  const lock = db.current.prisma.$transaction(async (tx) => {
    await tx.$executeRaw`SELECT 1 FROM "InteractionMemory" WHERE "id" = 'cut' FOR UPDATE`;
    const call = expect(service.recordMemoryAccess({ ...access, memoryId: 'cut' })).rejects.toThrow(
      UnavailableError,
    );
    const waiting = `FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`;
    while ((await db.current.sql(`SELECT ${waiting}`)).length === 0);
    await db.current.sql(`SELECT pg_terminate_backend(pid) ${waiting}`);
    await call;
  });
  await lock;
  await service.recordMemoryAccess({ ...access, memoryId: 'cut' });
});

test('other errors of the database pass as they are', async () => {
  await db.current.sql(
    `ALTER TABLE "InteractionMemory" ADD CONSTRAINT no_tea CHECK ("type" <> 'tea')`,
  );
  await expect(service.createMemory({ ...memory, type: 'tea' })).rejects.toThrow(/no_tea/);
});

test('use gives back the client that was set before', () => {
  const other = createPrismaClient('postgresql://nobody@127.0.0.1:1/x');
  expect(service.use(other)).toBe(db.current.prisma);
  expect(service.use(undefined)).toBe(other);
  expect(service.use(undefined)).toBeUndefined();
});

test('without a client, DATABASE_URL decides; disconnect closes only what the service opened', async () => {
  const own = await createTestDatabase();
  await createUserAndAgent(own);
  const { DATABASE_URL } = process.env;
  service.use(undefined);
  try {
    process.env['DATABASE_URL'] = own.url;
    await service.createMemory({ ...memory, id: 'mine' });
    expect(await own.sql('SELECT "id" FROM "InteractionMemory"')).toEqual([{ id: 'mine' }]);
    await service.disconnect();
    await service.disconnect();
    const connections = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'annals service'`;
    await expect.poll(() => own.sql(connections)).toHaveLength(0);

    process.env['DATABASE_URL'] = 'mysql://127.0.0.1/own';
    await expect(service.createMemory(memory)).rejects.toMatchObject({ code: 'CONFIG_INVALID' });

    service.use(db.current.prisma);
    await service.disconnect();
    await service.createMemory({ ...memory, id: 'theirs' });
  } finally {
    if (DATABASE_URL === undefined) delete process.env['DATABASE_URL'];
    else process.env['DATABASE_URL'] = DATABASE_URL;
    await own.drop();
  }
});

test('times are UTC whatever the zone of the server', async () => {
  const own = await createTestDatabase();
  await createUserAndAgent(own);
  const [{ name }] = (await own.sql('SELECT current_database() AS name')) as [{ name: string }];
  await own.sql(`ALTER DATABASE ${name} SET timezone = 'America/New_York'`);
  const prisma = createPrismaClient(own.url);
  service.use(prisma);
  try {
    const { id: memoryId } = await service.createMemory(memory);
    const occurredAt = new Date('2024-07-01T12:00:00.007Z');
    expect(
      (await service.recordMemoryAccess({ ...access, memoryId, occurredAt })).occurredAt,
    ).toEqual(occurredAt);
    expect(await own.sql('SELECT "lastAccessedAt"::text FROM "InteractionMemory"')).toEqual([
      { lastAccessedAt: '2024-07-01 12:00:00.007' },
    ]);
    await service.createSession({ sessionId: 's', agentId: 'agent-id', startedAt: occurredAt });
    const ended = await service.endSession({ sessionId: 's', endedAt: occurredAt });
    expect(ended.endedAt).toEqual(occurredAt);
    expect(Math.abs(ended.updatedAt.getTime() - Date.now())).toBeLessThan(60_000);
    expect(await own.prisma.aI_Agent.findFirst()).toMatchObject({ lastActiveAt: occurredAt });
  } finally {
    await prisma.$disconnect();
    await own.drop();
  }
});
