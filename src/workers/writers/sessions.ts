/**
 * The part `parent` of a statement: the `id` of each session of the part `session`, by its two names.
 * An event names one by its `id` or its `sessionId`; the `id` wins where one session's `sessionId` is
 * another's `id`.
 */
export const SESSION_BY_NAME = `parent AS MATERIALIZED (
  SELECT DISTINCT ON ("name") "name", "id"
  FROM (
    SELECT "id" AS "name", "id", 0 AS "rank" FROM session
    UNION ALL
    SELECT "sessionId", "id", 1 FROM session
  ) n
  ORDER BY "name", "rank"
)`;

/** The sessions that have one of some names: a statement of its own, which takes the names as a JSON array. */
export const SESSIONS_BY_NAMES = `
WITH named AS MATERIALIZED (
  SELECT ARRAY(SELECT json_array_elements_text($1::json)) AS "names"
)
SELECT "id", "sessionId" FROM "AgentSession"
WHERE "id" = ANY ((SELECT "names" FROM named)::text[])
  OR "sessionId" = ANY ((SELECT "names" FROM named)::text[])`;
