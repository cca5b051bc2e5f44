import { UNLESS_KNOWN, type StoredEvent, type Writer } from './writer.ts';

type MemoryAccess = StoredEvent<'memory-access'>;

/** Rows of MemoryAccess, and the counters of their memories (see `Writer` for the locking). */
export const memoryAccess: Writer = {
  // The parents are locked as an update of no key locks them, since `counted` updates them. That
  // update began with this statement's snapshot; where another transaction changed a memory since,
  // PostgreSQL re-reads the newest version of the row before it adds, so no count is lost.
  sql: `
WITH event AS MATERIALIZED (
  SELECT *
  FROM ROWS FROM (json_to_recordset($4::json) AS (
    "id" uuid, "occurredAt" timestamp(3), "memoryId" text, "accessType" text,
    "accessedBy" text, "accessorType" text, "context" text, "usefulness" float8
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

  tables: [
    {
      name: 'MemoryAccess',
      columns: [
        'id',
        'occurredAt',
        'accessType',
        'accessedBy',
        'accessorType',
        'context',
        'usefulness',
        'memoryId',
      ],
      row: (e: MemoryAccess, text) =>
        `${e.id}\t${e.occurredAt}\t${text(e.accessType)}\t${text(e.accessedBy)}\t${text(e.accessorType)}\t${text(e.context)}\t${text(e.usefulness)}`,
      parentOf: (e: MemoryAccess) => e.memoryId,
    },
  ],

  // Finds, locks and counts in one pass, where the statement above looks each memory up three times.
  // It passes them in the order of `told`, which is that of their ids, for it can only
  // be a nested loop over `told`: `= ANY` of one id can neither be hashed nor merged, and the
  // planner takes `told` for a single row (it assumes that two expressions, which here are always
  // equal, are so in one of 200 groups), so that to begin with anything else costs more.
  count: `
WITH told AS MATERIALIZED (
  SELECT "id", max("events") AS "accesses", max("latest") AS "latest"
  FROM json_to_recordset($1::json) AS t ("id" text, "events" int, "latest" timestamp(3))
  GROUP BY "id" HAVING count(*) = count("id")
  ORDER BY "id"
)
UPDATE "InteractionMemory" m
SET "accessCount" = m."accessCount" + t."accesses",
  "lastAccessedAt" = greatest(m."lastAccessedAt", t."latest")
FROM told t WHERE m."id" = ANY (ARRAY[t."id"])`,
};
