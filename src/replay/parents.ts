import type { PrismaClient } from '../database/client.ts';
import { toStorable } from '../json.ts';
import type { Shared } from './figures.ts';
import { idOf, type Naming, type Records } from './records.ts';

/** A task's conversations began and ended within this time. */
export interface TaskSpan {
  taskId: number;
  userId: string;
  startedAt: Date;
  endedAt: Date;
}

/** Who answers for rows that a replay makes and that need somebody: no user of the conversations. */
const OWNER = 'annals-replay';

/** Writes the agent that the conversations are of, with its first version, unless it exists. */
export async function writeAgent(prisma: PrismaClient, { agentId }: Naming): Promise<void> {
  const configuration = {};
  await prisma.$transaction(async (tx) => {
    const [agent] = await tx.aI_Agent.createManyAndReturn({
      data: {
        id: agentId,
        userId: OWNER,
        name: agentId,
        capabilities: [],
        configuration,
        specializations: [],
        learningMode: 'passive',
        trainingStatus: 'initial',
      },
      skipDuplicates: true,
    });
    if (!agent) return;
    await tx.agentVersion.create({
      data: {
        agentId,
        versionNumber: '1.0.0',
        changes: { configuration },
        isActive: true,
        activatedAt: agent.createdAt,
        createdAt: agent.createdAt,
      },
    });
  });
}

/**
 * Writes all that the events of some conversations refer to, a statement for each table. What
 * exists is left alone, so it may be done again, by any number of processes at once; and where a
 * memory is looked up by several users, it belongs to the first.
 */
export async function writeParents(
  prisma: PrismaClient,
  records: readonly Records[],
  shared: Shared,
  spans: ReadonlyMap<string, TaskSpan>,
  { source, agentId }: Naming,
): Promise<void> {
  const sessionDefaults = {
    status: 'completed',
    sessionSource: 'replay',
    sessionTags: [source],
  };
  await prisma.user.createMany(inserting(shared.users.map((id) => ({ id }))));
  await prisma.agentSession.createMany(
    inserting(
      shared.tasks.map((task) => {
        const { taskId, ...span } = spans.get(task) as TaskSpan;
        return {
          ...sessionDefaults,
          ...span,
          id: idOf(task),
          sessionId: task,
          context: { taskId },
        };
      }),
    ),
  );
  // By name, since a session of that name may have existed before, under an id of its own.
  const parents = await prisma.agentSession.findMany({
    where: { sessionId: { in: [...new Set(records.map(({ task }) => task))] } },
    select: { id: true, sessionId: true },
  });
  const parentIds = new Map(parents.map(({ id, sessionId }) => [sessionId, id]));
  await prisma.agentSession.createMany(
    inserting(
      records.map(({ session, task, userId }) => ({
        ...sessionDefaults,
        ...session,
        userId,
        agentId,
        parentSessionId: parentIds.get(task) ?? null,
      })),
    ),
  );
  await prisma.interactionMemory.createMany(
    inserting(
      records.flatMap(({ memories, userId, session }) =>
        memories.map(({ id, type, key, call }) => ({
          id,
          userId,
          agentId,
          type: 'fact',
          memoryType: 'fact',
          content: { type, key },
          importance: 0.5,
          confidence: 0.5,
          sessionId: session.sessionId,
          sourceType: 'tool_call',
          verificationStatus: 'unverified',
          createdAt: call.occurredAt,
        })),
      ),
    ),
  );
  await prisma.moduleState.createMany(
    inserting(
      records.flatMap(({ state, session }) =>
        state
          ? [
              {
                ...state,
                version: '1',
                sessionId: session.sessionId,
                stateType: 'module_state',
                createdAt: session.startedAt,
              },
            ]
          : [],
      ),
    ),
  );
}

/** Names come from the trace, where anything may stand; events go the same way in the producer. */
const inserting = <T extends object>(rows: T[]) => ({
  data: toStorable(rows).value,
  skipDuplicates: true,
});
