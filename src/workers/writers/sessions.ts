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
