import { v7 as uuidv7 } from 'uuid';
import { z } from 'zod';

import type { PrismaClient } from '../database/client.ts';
import { DuplicateError, NotFoundError } from '../errors.ts';
import type {
  InteractionMemory,
  MemoryAccess,
  MemoryAnnotation,
} from '../generated/prisma/client.ts';
import { attempt, transaction } from './attempt.ts';
import { confidenceOf, MEMORY_SOURCE, memoryTypeOf } from './derived.ts';
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
  prose,
  reference,
  time,
  unitInterval,
  uuid,
} from './input.ts';
import { notFound, orNotFound, requireRow } from './references.ts';

const memoryInput = z.strictObject({
  /** Key of the row. Default: a new cuid. */
  id: orElse(label, () => undefined),
  userId: reference,
  agentId: reference,
  /** The session (id or sessionId) in which the memory was made; it need not exist. */
  sessionId: optional(reference),
  /** Such as `fact`, `preference`, `interaction`. */
  type: label,
  /** Default: what `type` says, if it is one of those and their like. */
  memoryType: optional(label),
  content: json,
  /** Any finite number; 0..1 is usual. */
  importance: finite,
  /** 0..1; default: the importance, brought into that range. */
  confidence: optional(unitInterval),
  /** Default `user_input`. */
  sourceType: orElse(label, () => MEMORY_SOURCE),
  /** Default `unverified`. */
  verificationStatus: orElse(label, () => 'unverified'),
  relatedMemories: optionalJson,
  expiresAt: optional(time),
});
export type CreateMemoryInput = z.input<typeof memoryInput>;

export async function createMemory(
  prisma: PrismaClient,
  input: CreateMemoryInput,
): Promise<InteractionMemory> {
  const { id, ...given } = parseInput('createMemory', memoryInput, input);
  const memory = {
    ...given,
    memoryType: given.memoryType ?? memoryTypeOf(given.type),
    confidence: given.confidence ?? confidenceOf(given.importance),
  };
  return transaction(prisma, async (tx) => {
    await requireRow(tx, 'User', 'userId', memory.userId);
    await requireRow(tx, 'AI_Agent', 'agentId', memory.agentId);
    const data = [id === undefined ? memory : { id, ...memory }];
    const [created] = await tx.interactionMemory.createManyAndReturn({
      data,
      skipDuplicates: true,
    });
    if (created) return created;
    throw new DuplicateError(
      `id: a memory ${JSON.stringify(id)} exists already; choose another id`,
      {
        field: 'id',
        ...(id !== undefined && { id }),
      },
    );
  });
}

const memoryAccessInput = z.strictObject({
  ...eventFields,
  memoryId: reference,
  /** Such as `read`, `write`, `search`. */
  accessType: label,
  accessedBy: reference,
  /** Such as `agent`, `user`, `system`. */
  accessorType: label,
  context: optional(prose),
  /** 0..1 */
  usefulness: optional(unitInterval),
});
export type RecordMemoryAccessInput = z.input<typeof memoryAccessInput>;

export async function recordMemoryAccess(
  prisma: PrismaClient,
  input: RecordMemoryAccessInput,
): Promise<MemoryAccess> {
  const access = parseInput('recordMemoryAccess', memoryAccessInput, input);
  return attempt(async () => {
    // The memory is locked before its access is inserted, as the event writers do, so the two
    // wait for each other in one order. Only a row that was really inserted is counted, and the
    // count is added to the memory as its last writer left it, since UPDATE reads a row anew
    // after a wait.
    const [created] = await prisma.$queryRaw<MemoryAccess[]>`
      WITH memory AS (
        SELECT "id" FROM "InteractionMemory" WHERE "id" = ${access.memoryId} FOR NO KEY UPDATE
      ), inserted AS (
        INSERT INTO "MemoryAccess"
          ("id", "occurredAt", "memoryId", "accessType", "accessedBy", "accessorType", "context", "usefulness")
        SELECT ${access.id}::uuid, ${access.occurredAt}::timestamp(3), memory."id", ${access.accessType},
               ${access.accessedBy}, ${access.accessorType}, ${access.context}, ${access.usefulness}::float8
        FROM memory
        ON CONFLICT ("id") DO NOTHING
        RETURNING *
      ), counted AS (
        UPDATE "InteractionMemory" m
        SET "accessCount" = m."accessCount" + 1,
            "lastAccessedAt" = GREATEST(m."lastAccessedAt", inserted."occurredAt")
        FROM inserted
        WHERE m."id" = inserted."memoryId"
      )
      SELECT * FROM inserted`;
    if (created) return created;
    const stored = await prisma.memoryAccess.findUnique({ where: { id: access.id } });
    if (!stored) throw notFound('memoryId', 'InteractionMemory', access.memoryId);
    return stored;
  });
}

const annotationInput = z.strictObject({
  /** A uuid; give one to make the call repeatable. Default: a new one. */
  id: orElse(uuid, () => uuidv7()),
  memoryId: reference,
  /** Such as `correction`, `note`. */
  annotationType: label,
  content: json,
  /** The user or agent who wrote it; it need not exist. */
  createdById: optional(reference),
  /** Default false. */
  isApplied: orElse(flag, () => false),
});
export type CreateMemoryAnnotationInput = z.input<typeof annotationInput>;

export async function createMemoryAnnotation(
  prisma: PrismaClient,
  input: CreateMemoryAnnotationInput,
): Promise<MemoryAnnotation> {
  const annotation = parseInput('createMemoryAnnotation', annotationInput, input);
  const data = [{ ...annotation, appliedAt: annotation.isApplied ? new Date() : null }];
  return attempt(async () => {
    const write = prisma.memoryAnnotation.createManyAndReturn({ data, skipDuplicates: true });
    const [created] = await orNotFound(write, 'memoryId', 'InteractionMemory', annotation.memoryId);
    return created ?? prisma.memoryAnnotation.findUniqueOrThrow({ where: { id: annotation.id } });
  });
}

const applyInput = z.strictObject({
  /** The `id` of the annotation. */
  annotationId: uuid,
  /** Default now. */
  appliedAt: orElse(time, () => new Date()),
});
export type ApplyMemoryAnnotationInput = z.input<typeof applyInput>;

export async function applyMemoryAnnotation(
  prisma: PrismaClient,
  input: ApplyMemoryAnnotationInput,
): Promise<MemoryAnnotation> {
  const { annotationId, appliedAt } = parseInput('applyMemoryAnnotation', applyInput, input);
  // One statement: a second call waits for the row and keeps the time that the first one set.
  const [applied] = await attempt(
    () => prisma.$queryRaw<MemoryAnnotation[]>`
    UPDATE "MemoryAnnotation"
    SET "isApplied" = true, "appliedAt" = COALESCE("appliedAt", ${appliedAt}::timestamp(3))
    WHERE "id" = ${annotationId}::uuid
    RETURNING *`,
  );
  if (applied) return applied;
  throw new NotFoundError(
    `annotationId: there is no MemoryAnnotation ${JSON.stringify(annotationId)}`,
    {
      field: 'annotationId',
      id: annotationId,
    },
  );
}
