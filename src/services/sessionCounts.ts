import type { PrismaClient } from '../database/client.ts';
import { transaction } from './attempt.ts';

/**
 * Adds to each agent what its count is off by, rather than setting the count. A statement sees one
 * moment, in which `createSession` (one transaction) has both inserted and counted a session, or
 * neither; so the drift is right for that moment. A session that is created after it moves the
 * agent's row, and PostgreSQL re-reads that row, not `drift`, before it adds: both are kept. To set
 * the count would take that session back. Agents are locked in the order of their ids, as
 * by everything that locks several.
 */
const RECOUNT = `
WITH counted AS (
  SELECT s."agentId", count(*)::int AS "sessions", max(s."startedAt") AS "latest"
  FROM "AgentSession" s
  WHERE s."agentId" IS NOT NULL
  GROUP BY s."agentId"
), drift AS MATERIALIZED (
  SELECT a."id", coalesce(c."sessions", 0) - a."totalSessions" AS "sessions", c."latest"
  FROM "AI_Agent" a LEFT JOIN counted c ON c."agentId" = a."id"
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
SELECT count(*)::int AS "agents", coalesce(sum(abs("sessions")), 0)::int AS "drift" FROM healed`;

/**
 * Counts the sessions of every agent again and heals `totalSessions` and `lastActiveAt`. Sessions
 * may be created meanwhile.
 *
 * @returns how many agents were corrected, and by how many sessions in all
 *
 * @example const { agents, drift } = await recountSessions(prisma);
 */
export async function recountSessions(
  prisma: PrismaClient,
): Promise<{ agents: number; drift: number }> {
  return transaction(prisma, async (tx) => {
    // Two recounts at once would both add the same drift. The lock is taken by a statement of its
    // own, so that the recount's sees what the one before it has healed.
    await tx.$executeRaw`SELECT pg_advisory_xact_lock(hashtextextended('annals:session-counts', 0))`;
    const [healed] = await tx.$queryRawUnsafe<[{ agents: number; drift: number }]>(RECOUNT);
    return healed;
  });
}
