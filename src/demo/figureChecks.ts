import type { Figure } from './ledger.ts';

/** How the record tells a figure that the runtimes claim. */
interface FigureCheck {
  name: string;
  figure: Figure;
  sql: string;
}

/** Each yields one `total`. */
export const TOTALS: readonly FigureCheck[] = [
  {
    name: 'AgentSession children',
    figure: 'sessionChildren',
    sql: `SELECT count("parentSessionId") AS total FROM "AgentSession"`,
  },
  {
    name: 'InteractionMemory.accessCount, sum',
    figure: 'memoryAccesses',
    sql: `SELECT coalesce(sum("accessCount"), 0) AS total FROM "InteractionMemory"`,
  },
  {
    name: 'SessionMetric.metricValue, sum',
    figure: 'sessionMetricValues',
    sql: `SELECT coalesce(sum("metricValue"), 0) AS total FROM "SessionMetric"`,
  },
  {
    name: 'AgentMetric.metricValue, sum',
    figure: 'agentMetricValues',
    sql: `SELECT coalesce(sum("metricValue"), 0) AS total FROM "AgentMetric"`,
  },
  {
    name: 'AI_Agent.totalSessions, sum',
    figure: 'agentSessions',
    sql: `SELECT coalesce(sum("totalSessions"), 0) AS total FROM "AI_Agent"`,
  },
];

/** Each yields a `value` for each `key`; the name is that of the parents for which it is right. */
export const COMPARISONS: readonly FigureCheck[] = [
  {
    name: 'memories whose accessCount is right',
    figure: 'memoryAccesses',
    sql: `SELECT "id" AS key, "accessCount" AS value FROM "InteractionMemory"`,
  },
  {
    name: 'memories with all their accesses',
    figure: 'memoryAccesses',
    sql: `
      SELECT m."id" AS key, count(a."id") AS value
      FROM "InteractionMemory" m LEFT JOIN "MemoryAccess" a ON a."memoryId" = m."id"
      GROUP BY m."id"`,
  },
  {
    name: 'memories whose lastAccessedAt is right',
    figure: 'memoryLastAccess',
    sql: `
      SELECT "id" AS key, extract(epoch FROM "lastAccessedAt") * 1000 AS value
      FROM "InteractionMemory" WHERE "lastAccessedAt" IS NOT NULL`,
  },
  {
    name: 'sessions with all their events',
    figure: 'sessionEvents',
    sql: `
      SELECT s."sessionId" AS key, count(e."id") AS value
      FROM "AgentSession" s LEFT JOIN "SessionEvent" e ON e."sessionId" = s."id"
      GROUP BY s."id"`,
  },
  {
    name: 'sessions with all their metrics',
    figure: 'sessionMetrics',
    sql: `
      SELECT s."sessionId" AS key, count(m."id") AS value
      FROM "AgentSession" s LEFT JOIN "SessionMetric" m ON m."sessionId" = s."id"
      GROUP BY s."id"`,
  },
  {
    name: 'sessions with all their children',
    figure: 'sessionChildren',
    sql: `
      SELECT s."sessionId" AS key, count(c."id") AS value
      FROM "AgentSession" s LEFT JOIN "AgentSession" c ON c."parentSessionId" = s."id"
      GROUP BY s."id"`,
  },
  {
    name: 'sessions that have ended',
    figure: 'sessionsEnded',
    sql: `SELECT "sessionId" AS key, 1 AS value FROM "AgentSession" WHERE "endedAt" IS NOT NULL`,
  },
  {
    name: 'agents with all their metrics',
    figure: 'agentMetrics',
    sql: `SELECT "agentId" AS key, count(*) AS value FROM "AgentMetric" GROUP BY "agentId"`,
  },
  {
    name: 'agents whose totalSessions is right',
    figure: 'agentSessions',
    sql: `SELECT "id" AS key, "totalSessions" AS value FROM "AI_Agent"`,
  },
  {
    name: 'agents whose lastActiveAt is right',
    figure: 'agentLastActive',
    sql: `
      SELECT "id" AS key, extract(epoch FROM "lastActiveAt") * 1000 AS value
      FROM "AI_Agent" WHERE "lastActiveAt" IS NOT NULL`,
  },
  {
    name: 'module states with all their transitions',
    figure: 'stateTransitions',
    sql: `
      SELECT s."id" AS key, count(t."id") AS value
      FROM "ModuleState" s LEFT JOIN "StateTransition" t ON t."stateId" = s."id"
      GROUP BY s."id"`,
  },
  {
    // The longest way through a module's states has all of them only if they are one chain.
    name: 'modules whose states are one unforked chain',
    figure: 'moduleStates',
    sql: `
      WITH RECURSIVE chain AS (
        SELECT "id", "moduleId", 1 AS place FROM "ModuleState" WHERE "previousStateId" IS NULL
        UNION ALL
        SELECT s."id", s."moduleId", c.place + 1
        FROM chain c JOIN "ModuleState" s
          ON s."previousStateId" = c."id" AND s."moduleId" = c."moduleId"
      )
      SELECT "moduleId" AS key, max(place) AS value FROM chain GROUP BY "moduleId"`,
  },
];
