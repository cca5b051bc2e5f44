import { z } from 'zod';

import type { Prisma, PrismaClient } from '../database/client.ts';
import { ConflictError, DuplicateError } from '../errors.ts';
import type { AgentSession } from '../generated/prisma/client.ts';
import { attempt, transaction } from './attempt.ts';
import { purposeOf, SESSION_SOURCE, tagsOf } from './derived.ts';
import {
  json,
  label,
  optional,
  optionalJson,
  optionalTags,
  orElse,
  parseInput,
  prose,
  reference,
  time,
  unitInterval,
  valueOf,
} from './input.ts';
import { notFound, requireRow, resolveSession } from './references.ts';

const createSessionInput = z.strictObject({
  /** Key of the row. Default: a new cuid. */
  id: orElse(label, () => undefined),
  /** The runtime's own name of the session; no two sessions share one. */
  sessionId: label,
  userId: optional(reference),
  agentId: optional(reference),
  /** Default `active`. */
  status: orElse(label, () => 'active'),
  context: optionalJson,
  /** Default now. */
  startedAt: orElse(time, () => new Date()),
  /** Default: the context's `purpose`, `intent` or `goal`. */
  sessionPurpose: optional(prose),
  businessContext: optionalJson,
  /** Default: the strings of the context's `tags` or `categories`. */
  sessionTags: optionalTags,
  /** Such as `user`, `schedule`, `agent`. Default `user`. */
  sessionSource: orElse(label, () => SESSION_SOURCE),
  /** The `id` (not the `sessionId`) of the session that this one is a part of. */
  parentSessionId: optional(reference),
  /** 0..1 */
  qualityScore: optional(unitInterval),
  /** 0..1 */
  userSatisfaction: optional(unitInterval),
  learningOutcomes: optionalJson,
});
export type CreateSessionInput = z.input<typeof createSessionInput>;

export async function createSession(
  prisma: PrismaClient,
  input: CreateSessionInput,
): Promise<AgentSession> {
  const { id, ...given } = parseInput('createSession', createSessionInput, input);
  const context = valueOf(given.context);
  const session = {
    ...given,
    sessionPurpose: given.sessionPurpose ?? purposeOf(context),
    sessionTags: given.sessionTags ?? tagsOf(context),
  };
  const { sessionId, userId, agentId, parentSessionId, startedAt } = session;
  if (id !== undefined && id === parentSessionId) throw ownParent(id);
  // A new session is nobody's ancestor, so it cannot close a circle and needs no hierarchy lock.
  return transaction(prisma, async (tx) => {
    if (userId !== null) await requireRow(tx, 'User', 'userId', userId);
    if (parentSessionId !== null) await requireParent(tx, parentSessionId);
    const [created] = await tx.agentSession.createManyAndReturn({
      data: [id === undefined ? session : { id, ...session }],
      skipDuplicates: true,
    });
    if (!created) throw await taken(tx, id, sessionId);
    // Last, since sessions of a busy agent queue up for this row; a rollback undoes the count.
    if (agentId !== null) {
      const counted = await tx.$executeRaw`
        UPDATE "AI_Agent"
        SET "totalSessions" = "totalSessions" + 1,
            "lastActiveAt" = GREATEST("lastActiveAt", ${startedAt}::timestamp(3))
        WHERE "id" = ${agentId}`;
      if (counted === 0) throw notFound('agentId', 'AI_Agent', agentId);
    }
    return created;
  });
}

async function taken(tx: Prisma.TransactionClient, id: string | undefined, sessionId: string) {
  const clash = id === undefined ? null : await tx.agentSession.findUnique({ where: { id } });
  const [field, value] = clash ? ['id', clash.id] : ['sessionId', sessionId];
  return new DuplicateError(
    `${field}: a session ${JSON.stringify(value)} exists already; choose another ${field}`,
    {
      field,
      id: value,
    },
  );
}

/** People hand over the parent's name instead of its key; the error says so. */
async function requireParent(tx: Prisma.TransactionClient, id: string): Promise<void> {
  const locked =
    await tx.$executeRaw`SELECT 1 FROM "AgentSession" WHERE "id" = ${id} FOR KEY SHARE`;
  if (locked > 0) return;
  const named = await tx.agentSession.findUnique({ where: { sessionId: id } });
  const hint = named
    ? `that is a sessionId, and its session has the id ${JSON.stringify(named.id)}`
    : undefined;
  throw notFound('parentSessionId', 'AgentSession', id, hint);
}

const ownParent = (id: string) =>
  new ConflictError(`parentSessionId: session ${JSON.stringify(id)} cannot be its own parent`, {
    field: 'parentSessionId',
    id,
  });

const setParentInput = z.strictObject({
  /** The session's `id` or its `sessionId`; the `id` wins. */
  sessionId: reference,
  /** The `id` of the new parent, or null for none. */
  parentSessionId: reference.nullable(),
});
export type SetParentSessionInput = z.input<typeof setParentInput>;

export async function setParentSession(
  prisma: PrismaClient,
  input: SetParentSessionInput,
): Promise<AgentSession> {
  const { sessionId, parentSessionId } = parseInput('setParentSession', setParentInput, input);
  return transaction(prisma, async (tx) => {
    // Two moves, A below B and B below A, are each harmless and together a circle. So moves take
    // turns, all of them: they are rare. The lock ends with the commit, and the statements after
    // it see every earlier move. It is taken first and waited for by nobody else: no deadlock.
    await tx.$executeRaw`SELECT pg_advisory_xact_lock(hashtextextended('annals:session-hierarchy', 0))`;
    const id = await resolveSession(tx, sessionId);
    if (parentSessionId !== null) {
      if (parentSessionId === id) throw ownParent(id);
      await requireParent(tx, parentSessionId);
      await refuseDescendant(tx, id, parentSessionId);
    }
    const [moved] = await tx.agentSession.updateManyAndReturn({
      where: { id },
      data: { parentSessionId },
    });
    if (!moved) throw notFound('sessionId', 'AgentSession', sessionId);
    return moved;
  });
}

async function refuseDescendant(
  tx: Prisma.TransactionClient,
  id: string,
  parentSessionId: string,
): Promise<void> {
  // Upwards from the parent-to-be. UNION, not UNION ALL: it ends even in a circle made by hand.
  const met = await tx.$queryRaw<{ id: string }[]>`
    WITH RECURSIVE ancestor ("id", "parentSessionId") AS (
      SELECT "id", "parentSessionId" FROM "AgentSession" WHERE "id" = ${parentSessionId}
      UNION
      SELECT s."id", s."parentSessionId" FROM ancestor a JOIN "AgentSession" s ON s."id" = a."parentSessionId"
    )
    SELECT "id" FROM ancestor WHERE "id" = ${id}`;
  if (met.length > 0) {
    throw new ConflictError(
      `parentSessionId: session ${JSON.stringify(parentSessionId)} is below session ${JSON.stringify(id)}; move it out first`,
      { field: 'parentSessionId', id: parentSessionId },
    );
  }
}

const endSessionInput = z.strictObject({
  /** The session's `id` or its `sessionId`; the `id` wins. */
  sessionId: reference,
  /** Default `completed` when the session has not ended yet, else what it is. */
  status: optional(label),
  /** Default now. */
  endedAt: orElse(time, () => new Date()),
  /** 0..1 */
  qualityScore: optional(unitInterval),
  /** 0..1 */
  userSatisfaction: optional(unitInterval),
  learningOutcomes: optional(json),
});
export type EndSessionInput = z.input<typeof endSessionInput>;

export async function endSession(
  prisma: PrismaClient,
  input: EndSessionInput,
): Promise<AgentSession> {
  const end = parseInput('endSession', endSessionInput, input);
  // One statement: of two calls at once the second waits for the row and then computes from what
  // the first one wrote, so the first endedAt stays.
  const [ended] = await attempt(
    () => prisma.$queryRaw<AgentSession[]>`
    UPDATE "AgentSession"
    SET "status" = COALESCE(${end.status}, CASE WHEN "endedAt" IS NULL THEN 'completed' ELSE "status" END),
        "endedAt" = COALESCE("endedAt", ${end.endedAt}::timestamp(3)),
        "qualityScore" = COALESCE(${end.qualityScore}::float8, "qualityScore"),
        "userSatisfaction" = COALESCE(${end.userSatisfaction}::float8, "userSatisfaction"),
        "learningOutcomes" = COALESCE(${end.learningOutcomes?.text ?? null}::jsonb, "learningOutcomes"),
        "updatedAt" = now() AT TIME ZONE 'utc'
    WHERE "id" = (
      SELECT "id" FROM "AgentSession"
      WHERE "id" = ${end.sessionId} OR "sessionId" = ${end.sessionId}
      ORDER BY "id" = ${end.sessionId} DESC
      LIMIT 1)
    RETURNING *`,
  );
  if (!ended) throw notFound('sessionId', 'AgentSession', end.sessionId);
  // Prisma's models know no list that is null, which plain rows hold until the backfill comes by.
  return { ...ended, sessionTags: ended.sessionTags ?? [] };
}
