import { json } from './rows.ts';
import { UNLESS_KNOWN, type StoredEvent, type Writer } from './writer.ts';

type Metric = StoredEvent<'metrics'>;
type SessionMetric = Extract<Metric, { scope: 'session' }>;
type AgentMetric = Extract<Metric, { scope: 'agent' }>;

/** Rows of SessionMetric and AgentMetric (see `Writer` for the locking). */
export const metrics: Writer = {
  // `parent` is the union of both kinds of parents and both inserts read it, so that every agent,
  // then every session, is locked before the first row of either table is inserted. A session is
  // named by its `id` or its `sessionId`; the `id` wins.
  sql: `
WITH event AS MATERIALIZED (
  SELECT *, coalesce("agentId", "sessionId") AS "name"
  FROM ROWS FROM (json_to_recordset($4::json) AS (
    "id" uuid, "occurredAt" timestamp(3), "scope" text, "sessionId" text, "agentId" text,
    "metricType" text, "metricValue" float8, "timeframe" text, "metadata" json
  )) WITH ORDINALITY AS e ("id", "occurredAt", "scope", "sessionId", "agentId",
    "metricType", "metricValue", "timeframe", "metadata", "place")
), named AS MATERIALIZED (
  SELECT ARRAY(SELECT DISTINCT "name" FROM event WHERE "scope" = 'agent') AS "agents",
    ARRAY(SELECT DISTINCT "name" FROM event WHERE "scope" = 'session') AS "sessions"
), found_agent AS MATERIALIZED (
  SELECT "id" FROM "AI_Agent" WHERE "id" = ANY ((SELECT "agents" FROM named)::text[])
), found_session AS MATERIALIZED (
  SELECT "id" FROM "AgentSession"
  WHERE "id" = ANY ((SELECT "sessions" FROM named)::text[])
    OR "sessionId" = ANY ((SELECT "sessions" FROM named)::text[])
), agent AS MATERIALIZED (
  SELECT a."id"
  FROM found_agent f JOIN "AI_Agent" a ON a."id" = f."id"
  ORDER BY a."id"
  FOR KEY SHARE OF a
), session AS MATERIALIZED (
  SELECT s."id", s."sessionId"
  FROM found_session f JOIN "AgentSession" s ON s."id" = f."id"
  ORDER BY s."id"
  FOR KEY SHARE OF s
), parent AS MATERIALIZED (
  SELECT DISTINCT ON ("scope", "name") "scope", "name", "id"
  FROM (
    SELECT 'agent' AS "scope", "id" AS "name", "id", 0 AS "rank" FROM agent
    UNION ALL
    SELECT 'session', "id", "id", 0 FROM session
    UNION ALL
    SELECT 'session', "sessionId", "id", 1 FROM session
  ) n
  ORDER BY "scope", "name", "rank"
), of_sessions AS (
  INSERT INTO "SessionMetric" ("id", "occurredAt", "sessionId", "metricType", "metricValue",
    "metadata")
  SELECT e."id", e."occurredAt", p."id", e."metricType", e."metricValue", e."metadata"::jsonb
  FROM event e JOIN parent p ON p."scope" = e."scope" AND p."name" = e."name"
  WHERE e."scope" = 'session'
  ORDER BY e."id"
  ${UNLESS_KNOWN}
  RETURNING "id"
), of_agents AS (
  INSERT INTO "AgentMetric" ("id", "occurredAt", "agentId", "metricType", "metricValue",
    "timeframe", "metadata")
  SELECT e."id", e."occurredAt", p."id", e."metricType", e."metricValue", e."timeframe",
    e."metadata"::jsonb
  FROM event e JOIN parent p ON p."scope" = e."scope" AND p."name" = e."name"
  WHERE e."scope" = 'agent'
  ORDER BY e."id"
  ${UNLESS_KNOWN}
  RETURNING "id"
), inserted AS (
  SELECT "id" FROM of_sessions UNION ALL SELECT "id" FROM of_agents
), waiting AS (
  SELECT e."place", e."scope" || 'Id' AS "field", e."name" AS "reference"
  FROM event e LEFT JOIN parent p ON p."scope" = e."scope" AND p."name" = e."name"
  WHERE p."name" IS NULL
)`,

  tables: [
    {
      name: 'SessionMetric',
      isOfSessions: true,
      columns: ['id', 'occurredAt', 'metricType', 'metricValue', 'metadata', 'sessionId'],
      row: (e: SessionMetric, text) =>
        `${e.id}\t${e.occurredAt}\t${text(e.metricType)}\t${text(e.metricValue)}\t${json(e.metadata)}`,
      parentOf: (e: Metric) => (e.scope === 'session' ? e.sessionId : undefined),
    },
    {
      name: 'AgentMetric',
      columns: [
        'id',
        'occurredAt',
        'metricType',
        'metricValue',
        'timeframe',
        'metadata',
        'agentId',
      ],
      row: (e: AgentMetric, text) =>
        `${e.id}\t${e.occurredAt}\t${text(e.metricType)}\t${text(e.metricValue)}\t${text(e.timeframe)}\t${json(e.metadata)}`,
      parentOf: (e: Metric) => (e.scope === 'agent' ? e.agentId : undefined),
    },
  ],
};
