import { randomUUID } from 'node:crypto';

import { beforeAll, expect, test } from 'vitest';

import { DuplicateError } from '../../src/errors.ts';
import { EnhancedSchemaService as service } from '../../src/services/enhancedSchemaService.ts';
import { atOnce, one, useServiceDatabase } from './fixture.ts';

const db = useServiceDatabase();

const agentNames = ['versions', 'history', 'contested', 'measured', 'rated'];
beforeAll(() =>
  db.current.prisma.aI_Agent.createMany({
    data: agentNames.map((id) => ({
      id,
      userId: 'user-id',
      name: id,
      capabilities: [],
      configuration: {},
    })),
  }),
);

const version = (agentId: string, versionNumber: string, isActive = true) =>
  service.createAgentVersion({ agentId, versionNumber, changes: {}, isActive });

test('an active version takes over from the one before it', async () => {
  const first = await service.createAgentVersion({
    agentId: 'versions',
    versionNumber: '1.0.0',
    changes: { prompt: 'new' },
    createdById: 'user-id',
    isActive: true,
    performance: { score: 1 },
  });
  expect(first).toMatchObject({
    changes: { prompt: 'new' },
    createdById: 'user-id',
    performance: { score: 1 },
  });
  const draft = await version('versions', '1.1.0-draft', false);
  expect(draft).toMatchObject({ isActive: false, activatedAt: null, deactivatedAt: null });
  const second = await version('versions', '1.1.0');
  expect(second).toMatchObject({ isActive: true, deactivatedAt: null });
  expect(await db.current.prisma.agentVersion.findUnique({ where: { id: first.id } })).toEqual({
    ...first,
    isActive: false,
    deactivatedAt: second.activatedAt,
  });
  const agent = await db.current.prisma.aI_Agent.findUniqueOrThrow({ where: { id: 'versions' } });
  expect(agent.versionHistory).toEqual([
    { versionNumber: '1.0.0', activatedAt: first.activatedAt?.toISOString() },
    { versionNumber: '1.1.0', activatedAt: second.activatedAt?.toISOString() },
  ]);
});

test('a taken version changes nothing', async () => {
  const before = await db.current.sql('SELECT * FROM "AgentVersion" ORDER BY "id"');
  await expect(version('versions', '1.0.0')).rejects.toMatchObject({
    code: 'DUPLICATE',
    field: 'versionNumber',
    id: '1.0.0',
  });
  expect(await db.current.sql('SELECT * FROM "AgentVersion" ORDER BY "id"')).toEqual(before);
});

test('versions name the agent or user that is unknown', async () => {
  await expect(version('nobody', '1')).rejects.toMatchObject({
    code: 'NOT_FOUND',
    field: 'agentId',
    id: 'nobody',
  });
  await expect(
    service.createAgentVersion({
      agentId: 'versions',
      versionNumber: '9',
      changes: {},
      createdById: 'nobody',
    }),
  ).rejects.toMatchObject({ code: 'NOT_FOUND', field: 'createdById', id: 'nobody' });
});

test('the history keeps the last 50 activations', async () => {
  for (let n = 1; n <= 52; n++) await version('history', `1.0.${n}`);
  const { versionHistory } = await db.current.prisma.aI_Agent.findUniqueOrThrow({
    where: { id: 'history' },
  });
  const numbers = (versionHistory as { versionNumber: string }[]).map(
    ({ versionNumber }) => versionNumber,
  );
  expect(numbers).toEqual(Array.from({ length: 50 }, (_, index) => `1.0.${index + 3}`));
});

test('of versions activated at once exactly one stays active', async () => {
  await atOnce(20, (n) => version('contested', `1.0.${n}`));
  const rows = await db.current.prisma.agentVersion.findMany({ where: { agentId: 'contested' } });
  expect(rows).toHaveLength(20);
  const active = one(rows.filter(({ isActive }) => isActive));
  const { versionHistory } = await db.current.prisma.aI_Agent.findUniqueOrThrow({
    where: { id: 'contested' },
  });
  expect(versionHistory).toHaveLength(20);
  expect((versionHistory as { versionNumber: string }[]).at(-1)?.versionNumber).toBe(
    active.versionNumber,
  );
  expect(rows.every((row) => row.isActive === (row.deactivatedAt === null))).toBe(true);
});

test('of one version created at once, one is', async () => {
  const outcomes = await Promise.allSettled(
    Array.from({ length: 8 }, () => version('contested', '2.0.0')),
  );
  const refused = outcomes.filter((outcome) => outcome.status === 'rejected');
  expect(refused).toHaveLength(7);
  for (const { reason } of refused) expect(reason).toBeInstanceOf(DuplicateError);
});

test('metrics come back in the order given, stored exactly once', async () => {
  const ids = [randomUUID(), randomUUID(), randomUUID()];
  const metrics = ids.map((id, n) => ({
    id,
    metricType: `m${n}`,
    metricValue: n,
    timeframe: 'daily',
    metadata: { n },
  }));
  const agent = await service.updateAgentMetrics({ agentId: 'measured', metrics });
  expect(agent).toMatchObject({ id: 'measured', successRate: null, metrics });
  const changed = metrics.map((metric) => ({ ...metric, metricValue: 99 }));
  expect(
    (await service.updateAgentMetrics({ agentId: 'measured', metrics: changed })).metrics,
  ).toEqual(agent.metrics);
  await expect(
    service.updateAgentMetrics({ agentId: 'nobody', successRate: 1 }),
  ).rejects.toMatchObject({ code: 'NOT_FOUND', field: 'agentId', id: 'nobody' });
});

test('the success rate is the latest one measured, in whatever order it comes', async () => {
  const rate = (metricValue: number, occurredAt: string) => ({
    metricType: 'success_rate',
    metricValue,
    occurredAt,
  });
  const late = rate(0.9, '2024-03-01T00:00:00Z');
  const early = rate(0.1, '2024-01-01T00:00:00Z');
  expect(
    await service.updateAgentMetrics({ agentId: 'rated', metrics: [late, early] }),
  ).toMatchObject({ successRate: 0.9 });
  const older = await service.updateAgentMetrics({
    agentId: 'rated',
    metrics: [rate(0.5, '2024-02-01T00:00:00Z')],
  });
  expect(older.successRate).toBe(0.9);
  const now = await service.updateAgentMetrics({ agentId: 'rated', successRate: 0.7 });
  expect(now).toMatchObject({
    successRate: 0.7,
    metrics: [{ metricType: 'success_rate', metricValue: 0.7 }],
  });
});
