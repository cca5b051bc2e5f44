import { json } from './rows.ts';
import { UNLESS_KNOWN, type StoredEvent, type Writer } from './writer.ts';

type Transition = StoredEvent<'transition'>;

/** Rows of StateTransition (see `Writer` for the locking). */
export const transition: Writer = {
  sql: `
WITH event AS MATERIALIZED (
  SELECT *
  FROM ROWS FROM (json_to_recordset($4::json) AS (
    "id" uuid, "occurredAt" timestamp(3), "stateId" text, "triggerType" text, "triggerId" text,
    "transitionData" json, "previousValues" json, "newValues" json
  )) WITH ORDINALITY AS e ("id", "occurredAt", "stateId", "triggerType", "triggerId",
    "transitionData", "previousValues", "newValues", "place")
), found AS MATERIALIZED (
  SELECT "id" FROM "ModuleState"
  WHERE "id" = ANY (ARRAY(SELECT DISTINCT "stateId" FROM event))
), parent AS MATERIALIZED (
  SELECT s."id"
  FROM found f JOIN "ModuleState" s ON s."id" = f."id"
  ORDER BY s."id"
  FOR KEY SHARE OF s
), inserted AS (
  INSERT INTO "StateTransition" ("id", "occurredAt", "stateId", "triggerType", "triggerId",
    "transitionData", "previousValues", "newValues")
  SELECT e."id", e."occurredAt", e."stateId", e."triggerType", e."triggerId",
    e."transitionData"::jsonb, e."previousValues"::jsonb, e."newValues"::jsonb
  FROM event e JOIN parent p ON p."id" = e."stateId"
  ORDER BY e."id"
  ${UNLESS_KNOWN}
  RETURNING "id"
), waiting AS (
  SELECT e."place", 'stateId' AS "field", e."stateId" AS "reference"
  FROM event e LEFT JOIN parent p ON p."id" = e."stateId" WHERE p."id" IS NULL
)`,

  tables: [
    {
      name: 'StateTransition',
      columns: [
        'id',
        'occurredAt',
        'triggerType',
        'triggerId',
        'transitionData',
        'previousValues',
        'newValues',
        'stateId',
      ],
      row: (e: Transition, text) =>
        `${e.id}\t${e.occurredAt}\t${text(e.triggerType)}\t${text(e.triggerId)}\t${json(e.transitionData)}\t${json(e.previousValues)}\t${json(e.newValues)}`,
      parentOf: (e: Transition) => e.stateId,
    },
  ],
};
