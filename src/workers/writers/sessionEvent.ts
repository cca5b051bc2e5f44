import { json } from './rows.ts';
import { SESSION_BY_NAME } from './sessions.ts';
import { UNLESS_KNOWN, type StoredEvent, type Writer } from './writer.ts';

type SessionEvent = StoredEvent<'session-event'>;

/** Rows of SessionEvent (see `Writer` for the locking). */
export const sessionEvent: Writer = {
  sql: `
WITH event AS MATERIALIZED (
  SELECT *
  FROM ROWS FROM (json_to_recordset($4::json) AS (
    "id" uuid, "occurredAt" timestamp(3), "sessionId" text, "eventType" text, "eventData" json,
    "sequence" int, "duration" float8
  )) WITH ORDINALITY AS e ("id", "occurredAt", "sessionId", "eventType", "eventData",
    "sequence", "duration", "place")
), named AS MATERIALIZED (
  SELECT ARRAY(SELECT DISTINCT "sessionId" FROM event) AS "names"
), found AS MATERIALIZED (
  SELECT "id" FROM "AgentSession"
  WHERE "id" = ANY ((SELECT "names" FROM named)::text[])
    OR "sessionId" = ANY ((SELECT "names" FROM named)::text[])
), session AS MATERIALIZED (
  SELECT s."id", s."sessionId"
  FROM found f JOIN "AgentSession" s ON s."id" = f."id"
  ORDER BY s."id"
  FOR KEY SHARE OF s
), ${SESSION_BY_NAME}, inserted AS (
  INSERT INTO "SessionEvent" ("id", "occurredAt", "sessionId", "eventType", "eventData",
    "sequence", "duration")
  SELECT e."id", e."occurredAt", p."id", e."eventType", e."eventData"::jsonb, e."sequence",
    e."duration"
  FROM event e JOIN parent p ON p."name" = e."sessionId"
  ORDER BY e."id"
  ${UNLESS_KNOWN}
  RETURNING "id"
), waiting AS (
  SELECT e."place", 'sessionId' AS "field", e."sessionId" AS "reference"
  FROM event e LEFT JOIN parent p ON p."name" = e."sessionId" WHERE p."name" IS NULL
)`,

  tables: [
    {
      name: 'SessionEvent',
      isOfSessions: true,
      columns: ['id', 'occurredAt', 'eventType', 'eventData', 'sequence', 'duration', 'sessionId'],
      row: (e: SessionEvent, text) =>
        `${e.id}\t${e.occurredAt}\t${text(e.eventType)}\t${json(e.eventData)}\t${text(e.sequence)}\t${text(e.duration)}`,
      parentOf: (e: SessionEvent) => e.sessionId,
    },
  ],
};
