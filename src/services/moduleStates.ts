import { z } from 'zod';

import type { Prisma, PrismaClient } from '../database/client.ts';
import type { ModuleState, StateTransition } from '../generated/prisma/client.ts';
import { canonicalJson, sha256Hex } from '../json.ts';
import { attempt, hasLostRace, isForeignKeyViolation, transaction } from './attempt.ts';
import {
  eventFields,
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
} from './input.ts';
import { orNotFound } from './references.ts';

const moduleStateInput = z.strictObject({
  moduleId: label,
  state: json,
  /** Of the module's code or of the state's shape, such as `1.0.0`. */
  version: label,
  /** The session (id or sessionId) in which the state came to be; it need not exist. */
  sessionId: optional(reference),
  /** Default `module_state`. */
  stateType: orElse(label, () => 'module_state'),
  /** Default false. */
  isSnapshot: orElse(flag, () => false),
  snapshotReason: optional(prose),
  expiresAt: optional(time),
});
export type UpsertModuleStateInput = z.input<typeof moduleStateInput>;

export async function upsertModuleState(
  prisma: PrismaClient,
  input: UpsertModuleStateInput,
): Promise<ModuleState> {
  const wanted = parseInput('upsertModuleState', moduleStateInput, input);
  const stateHash = hashState(JSON.parse(wanted.state.text));
  const append = async (tx: Prisma.TransactionClient) => {
    // A module's first state has no row to lock, so callers queue up for the module's name; they
    // hold nothing else while they wait. Whoever comes next reads in a new statement, and thus
    // sees the row that the one before committed: the chain cannot fork. A writer that takes no
    // such lock meets the unique index of previousStateId, and we look again.
    await tx.$executeRaw`SELECT pg_advisory_xact_lock(hashtextextended('annals:module:' || ${wanted.moduleId}, 0))`;
    const newest = await findNewest(tx, wanted.moduleId);
    if (
      newest &&
      newest.version === wanted.version &&
      (newest.stateHash ?? hashState(newest.state)) === stateHash
    )
      return newest;
    return tx.moduleState.create({
      data: {
        ...wanted,
        stateHash,
        previousStateId: newest?.id ?? null,
        // Milliseconds are all that a time keeps, and clocks differ: a state is later than the
        // one before it even so, and (createdAt, id) orders the chain wherever it is read.
        createdAt: new Date(Math.max(Date.now(), newest ? newest.createdAt.getTime() + 1 : 0)),
      },
    });
  };
  // The state that ours was to follow may expire in between: then ours follows another.
  const hasLost = (error: unknown) => hasLostRace(error) || isForeignKeyViolation(error);
  return transaction(prisma, append, hasLost);
}

/**
 * The end of the module's chain: the state that no other follows. Plain rows whose links the
 * backfill has not set yet are all such ends; the latest by (createdAt, id) is the newest, which
 * is also the order in which the backfill links them.
 */
async function findNewest(
  tx: Prisma.TransactionClient,
  moduleId: string,
): Promise<ModuleState | undefined> {
  const [newest] = await tx.$queryRaw<ModuleState[]>`
    SELECT * FROM "ModuleState" s
    WHERE "moduleId" = ${moduleId}
      AND NOT EXISTS (SELECT FROM "ModuleState" later WHERE later."previousStateId" = s."id")
    ORDER BY "createdAt" DESC, "id" DESC
    LIMIT 1`;
  return newest;
}

const hashState = (state: unknown) => sha256Hex(canonicalJson(state));

const transitionInput = z.strictObject({
  ...eventFields,
  /** The `id` of the module state that was left or entered. */
  stateId: reference,
  /** Such as `user_action`, `agent_decision`. */
  triggerType: label,
  triggerId: optional(reference),
  transitionData: json,
  previousValues: optionalJson,
  newValues: optionalJson,
});
export type RecordStateTransitionInput = z.input<typeof transitionInput>;

export async function recordStateTransition(
  prisma: PrismaClient,
  input: RecordStateTransitionInput,
): Promise<StateTransition> {
  const data = parseInput('recordStateTransition', transitionInput, input);
  return attempt(async () => {
    const write = prisma.stateTransition.createManyAndReturn({
      data: [data],
      skipDuplicates: true,
    });
    const [created] = await orNotFound(write, 'stateId', 'ModuleState', data.stateId);
    return created ?? prisma.stateTransition.findUniqueOrThrow({ where: { id: data.id } });
  });
}
