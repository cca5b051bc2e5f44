import { z } from 'zod';

import type { Prisma, PrismaClient } from '../database/client.ts';
import type { SessionEvent, SessionMetric } from '../generated/prisma/client.ts';
import { attempt, transaction } from './attempt.ts';
import {
  durationMs,
  eventFields,
  finite,
  int4,
  json,
  label,
  optional,
  optionalJson,
  parseInput,
  reference,
} from './input.ts';
import { lockRow, orNotFound, resolveSession } from './references.ts';

const sessionMetricInput = z.strictObject({
  ...eventFields,
  /** The session's `id` or its `sessionId`; the `id` wins. */
  sessionId: reference,
  metricType: label,
  metricValue: finite,
  metadata: optionalJson,
});
export type CreateSessionMetricInput = z.input<typeof sessionMetricInput>;

export async function createSessionMetric(
  prisma: PrismaClient,
  input: CreateSessionMetricInput,
): Promise<SessionMetric> {
  const metric = parseInput('createSessionMetric', sessionMetricInput, input);
  return attempt(async () => {
    const sessionId = await resolveSession(prisma, metric.sessionId);
    const write = prisma.sessionMetric.createManyAndReturn({
      data: [{ ...metric, sessionId }],
      skipDuplicates: true,
    });
    const [created] = await orNotFound(write, 'sessionId', 'AgentSession', metric.sessionId);
    return created ?? prisma.sessionMetric.findUniqueOrThrow({ where: { id: metric.id } });
  });
}

const sessionEventInput = z.strictObject({
  ...eventFields,
  /** The session's `id` or its `sessionId`; the `id` wins. */
  sessionId: reference,
  eventType: label,
  eventData: json,
  /** Place within the session. Default: one above the session's highest, beginning with 1. */
  sequence: optional(int4),
  /** Milliseconds. */
  duration: optional(durationMs),
});
export type CreateSessionEventInput = z.input<typeof sessionEventInput>;

export async function createSessionEvent(
  prisma: PrismaClient,
  input: CreateSessionEventInput,
): Promise<SessionEvent> {
  const event = parseInput('createSessionEvent', sessionEventInput, input);
  return transaction(prisma, async (tx) => {
    const sessionId = await resolveSession(tx, event.sessionId);
    // The lock comes in a statement before the maximum is read: who had to wait for it then sees
    // the event of the one that held it, and two callers never take the same place.
    await lockRow(tx, 'AgentSession', 'sessionId', sessionId);
    const sequence = event.sequence ?? (await nextSequence(tx, sessionId));
    const data = [{ ...event, sessionId, sequence }];
    const [created] = await tx.sessionEvent.createManyAndReturn({ data, skipDuplicates: true });
    return created ?? tx.sessionEvent.findUniqueOrThrow({ where: { id: event.id } });
  });
}

async function nextSequence(tx: Prisma.TransactionClient, sessionId: string): Promise<number> {
  const { _max } = await tx.sessionEvent.aggregate({
    where: { sessionId },
    _max: { sequence: true },
  });
  return (_max.sequence ?? 0) + 1;
}
