import type { PrismaClient } from '../database/client.ts';
import { attempt } from './attempt.ts';

/*
 * Neither statement ever waits for a row: what somebody else holds (an access that is being
 * counted, a state that is being followed) is left for the next run. So neither can be part of a
 * deadlock, and neither takes away a row under the hands of its user. What refers to a row goes
 * with it, by the foreign keys. A row that was given more time meanwhile is read anew when it is
 * locked, and stays.
 */

const EXPIRE_MEMORIES = `
WITH due AS MATERIALIZED (
  SELECT m."id"
  FROM "InteractionMemory" m
  WHERE m."expiresAt" <= now() AT TIME ZONE 'utc'
  ORDER BY m."expiresAt"
  LIMIT $1
  FOR UPDATE SKIP LOCKED
)
DELETE FROM "InteractionMemory" m USING due WHERE m."id" = due."id"`;

/** The state after one that goes becomes the first of its chain: it is written, so locked too. */
const EXPIRE_STATES = `
WITH due AS MATERIALIZED (
  SELECT s."id"
  FROM "ModuleState" s
  WHERE s."expiresAt" <= now() AT TIME ZONE 'utc'
  ORDER BY s."expiresAt"
  LIMIT $1
  FOR UPDATE SKIP LOCKED
), follower AS MATERIALIZED (
  SELECT f."id"
  FROM "ModuleState" f
  WHERE f."previousStateId" = ANY (ARRAY(SELECT "id" FROM due))
  FOR UPDATE SKIP LOCKED
)
DELETE FROM "ModuleState" s
USING due
WHERE s."id" = due."id"
  AND NOT EXISTS (
    SELECT FROM "ModuleState" f
    WHERE f."previousStateId" = s."id" AND f."id" NOT IN (SELECT "id" FROM follower)
  )`;

/** What went. */
export interface Expiry {
  moduleStates: number;
  memories: number;
}

export interface ExpiryOptions {
  /** Rows that go in one transaction. Default 1,000. */
  chunkRows?: number;
  /** Ends it, with the signal's reason, when the chunk that is under way has committed. */
  signal?: AbortSignal;
  /** Told after each chunk what went so far. */
  onProgress?: (sofar: Readonly<Expiry>) => unknown;
  /** What went in a run that did not end: it is in the result. Default: nothing. */
  resume?: Readonly<Expiry>;
}

/**
 * Deletes module states and memories whose `expiresAt` has passed, by the clock of PostgreSQL, with
 * their transitions, accesses and annotations.
 *
 * @example const { moduleStates, memories } = await expireRows(prisma);
 */
export async function expireRows(
  prisma: PrismaClient,
  { chunkRows = 1000, signal, onProgress, resume }: ExpiryOptions = {},
): Promise<Expiry> {
  const gone: Expiry = { moduleStates: 0, memories: 0, ...resume };
  for (const [what, sql] of [
    ['moduleStates', EXPIRE_STATES],
    ['memories', EXPIRE_MEMORIES],
  ] as const) {
    for (;;) {
      signal?.throwIfAborted();
      const deleted = await attempt(() => prisma.$executeRawUnsafe(sql, chunkRows));
      if (deleted === 0) break;
      gone[what] += deleted;
      await onProgress?.(gone);
    }
  }
  return gone;
}
