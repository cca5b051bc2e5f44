import { z } from 'zod';

import { Prisma, type PrismaClient } from '../database/client.ts';
import { DuplicateError, InvalidArgumentError } from '../errors.ts';
import type { AgentMetric, AgentVersion, AI_Agent } from '../generated/prisma/client.ts';
import { transaction } from './attempt.ts';
import {
  eventFields,
  finite,
  flag,
  json,
  label,
  optional,
  optionalJson,
  orElse,
  parseInput,
  reference,
  unitInterval,
} from './input.ts';
import { lockRow, requireRow } from './references.ts';

/** Entries of `versionHistory` that are kept; AgentVersion has them all. */
const MAX_HISTORY = 50;

/** The metric that `AI_Agent.successRate` follows. */
const SUCCESS_RATE = 'success_rate';

const agentVersionInput = z.strictObject({
  agentId: reference,
  /** Unique within the agent, such as `1.1.0`. */
  versionNumber: label,
  changes: json,
  /** The user who made it. */
  createdById: optional(reference),
  /** Whether it becomes the agent's one active version. Default false. */
  isActive: orElse(flag, () => false),
  performance: optionalJson,
});
export type CreateAgentVersionInput = z.input<typeof agentVersionInput>;

export async function createAgentVersion(
  prisma: PrismaClient,
  input: CreateAgentVersionInput,
): Promise<AgentVersion> {
  const version = parseInput('createAgentVersion', agentVersionInput, input);
  const { agentId, versionNumber, createdById, isActive } = version;
  return transaction(prisma, async (tx) => {
    if (createdById !== null) await requireRow(tx, 'User', 'createdById', createdById);
    // Activations of one agent take turns at its row, so each sees the one before it and exactly
    // one stays active; the partial unique index stands guard against everybody else.
    await lockRow(tx, 'AI_Agent', 'agentId', agentId);
    if (
      await tx.agentVersion.findUnique({
        where: { agentId_versionNumber: { agentId, versionNumber } },
      })
    ) {
      throw new DuplicateError(
        `versionNumber: agent ${JSON.stringify(agentId)} has a version ${JSON.stringify(versionNumber)} already; choose another`,
        { field: 'versionNumber', id: versionNumber },
      );
    }
    if (!isActive) return tx.agentVersion.create({ data: version });
    const activatedAt = new Date();
    await tx.agentVersion.updateMany({
      where: { agentId, isActive: true },
      data: { isActive: false, deactivatedAt: activatedAt },
    });
    await appendToHistory(tx, agentId, { versionNumber, activatedAt: activatedAt.toISOString() });
    return tx.agentVersion.create({ data: { ...version, activatedAt } });
  });
}

/** The agent's row is locked: what is read here is what is replaced. */
async function appendToHistory(
  tx: Prisma.TransactionClient,
  agentId: string,
  entry: Prisma.InputJsonObject,
) {
  const { versionHistory } = await tx.aI_Agent.findUniqueOrThrow({
    where: { id: agentId },
    select: { versionHistory: true },
  });
  const history = Array.isArray(versionHistory) ? (versionHistory as Prisma.InputJsonArray) : [];
  await tx.aI_Agent.update({
    where: { id: agentId },
    data: { versionHistory: [...history, entry].slice(-MAX_HISTORY) },
  });
}

const agentMetricsInput = z.strictObject({
  agentId: reference,
  /** At most 1,000. */
  metrics: orElse(
    z
      .array(
        z.strictObject(
          {
            ...eventFields,
            /** `success_rate` (0..1) also moves the agent's `successRate`. */
            metricType: label,
            metricValue: finite,
            /** Such as `daily`, `2024-W20`. */
            timeframe: optional(label),
            metadata: optionalJson,
          },
          'takes an object with metricType and metricValue',
        ),
        'takes a list of metrics',
      )
      .max(1000, 'takes at most 1,000 metrics'),
    () => [],
  ),
  /** 0..1; short for a metric `success_rate` taken now. */
  successRate: optional(unitInterval),
});
export type UpdateAgentMetricsInput = z.input<typeof agentMetricsInput>;

/** The agent, with the metrics of this call alone. */
export type AgentWithMetrics = AI_Agent & { metrics: AgentMetric[] };

export async function updateAgentMetrics(
  prisma: PrismaClient,
  input: UpdateAgentMetricsInput,
): Promise<AgentWithMetrics> {
  const {
    agentId,
    metrics: given,
    successRate,
  } = parseInput('updateAgentMetrics', agentMetricsInput, input);
  const metrics = given.map((metric, index) => ({
    ...metric,
    agentId,
    metricValue: checkRate(metric, index),
  }));
  if (successRate !== null) metrics.push(successMetric(agentId, successRate));
  if (metrics.length === 0) throw emptyUpdate();
  const ids = metrics.map(({ id }) => id);
  return transaction(prisma, async (tx) => {
    await lockRow(tx, 'AI_Agent', 'agentId', agentId);
    // In the order of their ids, as everybody inserts: two batches that share ids cannot deadlock.
    const data = metrics.toSorted((a, b) => (a.id < b.id ? -1 : 1));
    await tx.agentMetric.createMany({ data, skipDuplicates: true });
    if (metrics.some(({ metricType }) => metricType === SUCCESS_RATE))
      await followSuccessRate(tx, agentId);
    const agent = await tx.aI_Agent.findUniqueOrThrow({ where: { id: agentId } });
    const stored = new Map(
      (await tx.agentMetric.findMany({ where: { id: { in: ids } } })).map((row) => [row.id, row]),
    );
    return { ...agent, metrics: ids.flatMap((id) => stored.get(id) ?? []) };
  });
}

/** From the stored metrics, so that neither the order nor the repetition of calls matters. */
async function followSuccessRate(tx: Prisma.TransactionClient, agentId: string): Promise<void> {
  await tx.$executeRaw`
    UPDATE "AI_Agent"
    SET "successRate" = (
      SELECT "metricValue" FROM "AgentMetric"
      WHERE "agentId" = ${agentId} AND "metricType" = ${SUCCESS_RATE} AND "metricValue" BETWEEN 0 AND 1
      ORDER BY "occurredAt" DESC, "id" DESC
      LIMIT 1)
    WHERE "id" = ${agentId}`;
}

function successMetric(agentId: string, metricValue: number) {
  const { id, occurredAt } = z.object(eventFields).parse({});
  return {
    id,
    occurredAt,
    agentId,
    metricType: SUCCESS_RATE,
    metricValue,
    timeframe: null,
    metadata: Prisma.DbNull,
  };
}

function checkRate(metric: { metricType: string; metricValue: number }, index: number): number {
  const { metricType, metricValue } = metric;
  if (metricType !== SUCCESS_RATE || (metricValue >= 0 && metricValue <= 1)) return metricValue;
  const field = `metrics[${index}].metricValue`;
  throw new InvalidArgumentError(
    `updateAgentMetrics: ${field}: got ${metricValue}; a ${SUCCESS_RATE} takes a number from 0 to 1`,
    { field },
  );
}

const emptyUpdate = () =>
  new InvalidArgumentError(
    'updateAgentMetrics: metrics: got nothing; takes at least one metric or a successRate',
    {
      field: 'metrics',
    },
  );
