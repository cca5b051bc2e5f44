import type { PrismaClient } from '../database/client.ts';
import { transaction } from './attempt.ts';

/**
 * Takes the next agents by id, and adds to each what its count is off by, rather than setting the
 * count. A statement sees one moment, in which `createSession` (one transaction) has both inserted
 * and counted a session, or neither; so the drift is right for that moment. A session that is
 * created after it moves the agent's row, and PostgreSQL re-reads that row, not `drift`, before it
 * adds: both are kept. To set the count would take that session back. Agents are locked in the
 * order of their ids, as by everything that locks several.
 */
const RECOUNT = `
WITH chunk AS MATERIALIZED (
  SELECT a."id", a."totalSessions", a."lastActiveAt"
  FROM "AI_Agent" a
  WHERE $1::text IS NULL OR a."id" > $1
  ORDER BY a."id"
  LIMIT $2
), counted AS (
  SELECT s."agentId", count(*)::int AS "sessions", max(s."startedAt") AS "latest"
  FROM "AgentSession" s
  WHERE s."agentId" = ANY (ARRAY(SELECT "id" FROM chunk))
  GROUP BY s."agentId"
), drift AS MATERIALIZED (
  SELECT a."id", coalesce(c."sessions", 0) - a."totalSessions" AS "sessions", c."latest"
  FROM chunk a LEFT JOIN counted c ON c."agentId" = a."id"
  WHERE coalesce(c."sessions", 0) <> a."totalSessions" OR c."latest" > a."lastActiveAt"
    OR (c."latest" IS NOT NULL AND a."lastActiveAt" IS NULL)
), locked AS MATERIALIZED (
  SELECT a."id"
  FROM "AI_Agent" a
  WHERE a."id" = ANY (ARRAY(SELECT "id" FROM drift))
  ORDER BY a."id"
  FOR NO KEY UPDATE
), healed AS (
  UPDATE "AI_Agent" a
  SET "totalSessions" = a."totalSessions" + d."sessions",
    "lastActiveAt" = greatest(a."lastActiveAt", d."latest")
  FROM drift d JOIN locked l ON l."id" = d."id"
  WHERE a."id" = d."id"
  RETURNING d."sessions"
)
SELECT (SELECT max("id") FROM chunk) AS "cursor", (SELECT count(*)::int FROM chunk) AS "checked",
  count(*)::int AS "agents", coalesce(sum(abs("sessions")), 0)::float8 AS "drift"
FROM healed`;

/** What a recount found. */
export interface Recount {
  /** Agents that were looked at. */
  checked: number;
  /** Agents of these whose figures were wrong, and were corrected. */
  agents: number;
  /** By how many sessions they were wrong, in all. */
  drift: number;
}

/** How far a recount has got. */
export interface RecountProgress extends Recount {
  /** Id of the last agent that was looked at; null before the first. */
  cursor: string | null;
}

export interface RecountOptions {
  /** Agents that are looked at in one transaction. Default 1,000. */
  chunkAgents?: number;
  /** Ends the recount, with the signal's reason, when the chunk that is under way has committed. */
  signal?: AbortSignal;
  /** Told after each chunk what was found so far. */
  onProgress?: (sofar: Readonly<RecountProgress>) => unknown;
  /** Where one that did not end had got to: what it found is in the result. Default: the start. */
  resume?: Readonly<RecountProgress>;
}

/**
 * Counts the sessions of every agent again and heals `totalSessions` and `lastActiveAt`, writing
 * only what is wrong. Sessions may be created meanwhile, and other recounts may run. Each chunk is
 * a transaction of its own: whoever ends in the middle leaves nothing half done.
 *
 * @example const { checked, agents, drift } = await recountSessions(prisma);
 */
export async function recountSessions(
  prisma: PrismaClient,
  { chunkAgents = 1000, signal, onProgress, resume }: RecountOptions = {},
): Promise<Recount> {
  const since = performance.now();
  let { checked, agents, drift, cursor } = resume ?? NOT_BEGUN;
  for (;;) {
    signal?.throwIfAborted();
    const sofar = { checked, agents, drift, cursor };
    const chunk = await recountChunk(prisma, sofar, chunkAgents, since);
    checked += chunk.checked;
    agents += chunk.agents;
    drift += chunk.drift;
    if (chunk.checked < chunkAgents) return { checked, agents, drift };
    cursor = chunk.cursor;
    await onProgress?.({ checked, agents, drift, cursor });
  }
}

const NOT_BEGUN: RecountProgress = { checked: 0, agents: 0, drift: 0, cursor: null };

/** Of the last recount to end there is one row. */
const REMEMBER = `
INSERT INTO "SessionRecount" ("checked", "agents", "drift", "tookMs", "finishedAt")
VALUES ($1, $2, $3, $4, clock_timestamp() AT TIME ZONE 'utc')
ON CONFLICT ("id") DO UPDATE
SET "checked" = excluded."checked", "agents" = excluded."agents", "drift" = excluded."drift",
  "tookMs" = excluded."tookMs", "finishedAt" = excluded."finishedAt"`;

/** Recounts the next agents; the last chunk leaves what all found where the board reads it. */
function recountChunk(
  prisma: PrismaClient,
  sofar: RecountProgress,
  agents: number,
  since: number,
): Promise<RecountProgress> {
  return transaction(prisma, async (tx) => {
    // Two recounts at once would both add the same drift. The lock is taken by a statement of its
    // own, so that the recount's sees what the one before it has healed.
    await tx.$executeRaw`SELECT pg_advisory_xact_lock(hashtextextended('annals:session-counts', 0))`;
    const [found] = await tx.$queryRawUnsafe<[RecountProgress]>(RECOUNT, sofar.cursor, agents);
    if (found.checked < agents) {
      await tx.$executeRawUnsafe(
        REMEMBER,
        sofar.checked + found.checked,
        sofar.agents + found.agents,
        sofar.drift + found.drift,
        Math.round(performance.now() - since),
      );
    }
    return found;
  });
}
