import type { Prisma, PrismaClient } from '../../src/database/client.ts';
import type { PlannedEvent } from '../../src/demo/plan.ts';

/** An event as it stands in a job of somebody else's queue: its time has become text. */
export type QueuedEvent = PlannedEvent;

/** The event with its time as Prisma takes it. */
function revive(queued: QueuedEvent): PlannedEvent {
  const event = { ...queued.event, occurredAt: new Date(queued.event.occurredAt) };
  return { ...queued, event } as PlannedEvent;
}

/** What most people write: a create, and for an access an update of its memory, in one transaction. */
export async function createOne(prisma: PrismaClient, queued: QueuedEvent): Promise<void> {
  const { kind, event } = revive(queued);
  switch (kind) {
    case 'memory-access':
      await prisma.$transaction([
        prisma.memoryAccess.create({ data: event as Prisma.MemoryAccessUncheckedCreateInput }),
        prisma.interactionMemory.update({
          where: { id: event.memoryId },
          data: { accessCount: { increment: 1 }, lastAccessedAt: event.occurredAt },
        }),
      ]);
      break;
    case 'transition':
      await prisma.stateTransition.create({
        data: event as Prisma.StateTransitionUncheckedCreateInput,
      });
      break;
    case 'session-event':
      await prisma.sessionEvent.create({ data: event as Prisma.SessionEventUncheckedCreateInput });
      break;
    case 'metrics': {
      const { scope, ...data } = event;
      if (scope === 'session') {
        await prisma.sessionMetric.create({
          data: data as Prisma.SessionMetricUncheckedCreateInput,
        });
      } else {
        await prisma.agentMetric.create({ data: data as Prisma.AgentMetricUncheckedCreateInput });
      }
    }
  }
}

/**
 * What an attentive user of a queue that hands out batches writes: a `createMany` for each table
 * and one statement for all counters, in one transaction. Memories are locked in the order of their
 * ids, without which two batches deadlock.
 */
export async function createBatch(
  prisma: PrismaClient,
  batch: readonly QueuedEvent[],
): Promise<void> {
  const accesses: Prisma.MemoryAccessCreateManyInput[] = [];
  const transitions: Prisma.StateTransitionCreateManyInput[] = [];
  const sessionEvents: Prisma.SessionEventCreateManyInput[] = [];
  const sessionMetrics: Prisma.SessionMetricCreateManyInput[] = [];
  const agentMetrics: Prisma.AgentMetricCreateManyInput[] = [];
  for (const queued of batch) {
    const { kind, event } = revive(queued);
    if (kind === 'memory-access') accesses.push(event as Prisma.MemoryAccessCreateManyInput);
    else if (kind === 'transition') {
      transitions.push(event as Prisma.StateTransitionCreateManyInput);
    } else if (kind === 'session-event') {
      sessionEvents.push(event as Prisma.SessionEventCreateManyInput);
    } else {
      const { scope, ...data } = event;
      if (scope === 'session') sessionMetrics.push(data as Prisma.SessionMetricCreateManyInput);
      else agentMetrics.push(data as Prisma.AgentMetricCreateManyInput);
    }
  }
  const ids = accesses.map(({ memoryId }) => memoryId);
  const times = accesses.map(({ occurredAt }) => (occurredAt as Date).toISOString().slice(0, -1));
  await prisma.$transaction([
    prisma.$executeRaw`SELECT FROM "InteractionMemory" WHERE "id" = ANY (${ids}::text[]) ORDER BY "id" FOR NO KEY UPDATE`,
    prisma.memoryAccess.createMany({ data: accesses }),
    prisma.stateTransition.createMany({ data: transitions }),
    prisma.sessionEvent.createMany({ data: sessionEvents }),
    prisma.sessionMetric.createMany({ data: sessionMetrics }),
    prisma.agentMetric.createMany({ data: agentMetrics }),
    prisma.$executeRaw`
      UPDATE "InteractionMemory" m
      SET "accessCount" = m."accessCount" + a.n, "lastAccessedAt" = greatest(m."lastAccessedAt", a.latest)
      FROM (SELECT id, count(*)::int AS n, max(at)::timestamp(3) AS latest
            FROM unnest(${ids}::text[], ${times}::timestamp[]) AS t (id, at) GROUP BY id) a
      WHERE m."id" = a.id`,
  ]);
}
