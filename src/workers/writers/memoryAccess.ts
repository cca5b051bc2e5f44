import { UNLESS_KNOWN, type Writer } from './writer.ts';

/** Rows of MemoryAccess, and the counters of their memories (see `Writer` for the locking). */
export const memoryAccess: Writer = {
  // The parents are locked as an update of no key locks them, since `counted` updates them. That
  // update began with this statement's snapshot; where another transaction changed a memory since,
  // PostgreSQL re-reads the newest version of the row before it adds, so no count is lost.
  sql: `
WITH event AS MATERIALIZED (
  SELECT *
  FROM ROWS FROM (json_to_recordset($1::json) AS (
    "id" uuid, "occurredAt" timestamp(3), "memoryId" text, "accessType" text, "accessedBy" text,
    "accessorType" text, "context" text, "usefulness" float8
  )) WITH ORDINALITY AS e ("id", "occurredAt", "memoryId", "accessType", "accessedBy",
    "accessorType", "context", "usefulness", "place")
), found AS MATERIALIZED (
  SELECT "id" FROM "InteractionMemory"
  WHERE "id" = ANY (ARRAY(SELECT DISTINCT "memoryId" FROM event))
), parent AS MATERIALIZED (
  SELECT m."id"
  FROM found f JOIN "InteractionMemory" m ON m."id" = f."id"
  ORDER BY m."id"
  FOR NO KEY UPDATE OF m
), inserted AS (
  INSERT INTO "MemoryAccess" ("id", "occurredAt", "memoryId", "accessType", "accessedBy",
    "accessorType", "context", "usefulness")
  SELECT e."id", e."occurredAt", e."memoryId", e."accessType", e."accessedBy",
    e."accessorType", e."context", e."usefulness"
  FROM event e JOIN parent p ON p."id" = e."memoryId"
  ORDER BY e."id"
  ${UNLESS_KNOWN}
  RETURNING "id", "memoryId", "occurredAt"
), counted AS (
  UPDATE "InteractionMemory" m
  SET "accessCount" = m."accessCount" + i."accesses",
    "lastAccessedAt" = greatest(m."lastAccessedAt", i."latest")
  FROM (
    SELECT "memoryId", count(*)::int AS "accesses", max("occurredAt") AS "latest"
    FROM inserted GROUP BY "memoryId"
  ) i
  WHERE m."id" = i."memoryId"
), waiting AS (
  SELECT e."place", 'memoryId' AS "field", e."memoryId" AS "reference"
  FROM event e LEFT JOIN parent p ON p."id" = e."memoryId" WHERE p."id" IS NULL
)`,
};
