import { NIL, validate } from 'uuid';

import { Prisma, type PrismaClient } from '../database/client.ts';
import type { ProducerLedger } from '../queues/envelope.ts';
import type { EventKind } from '../queues/events.ts';
import { CLOSED_SUMS, SUM_OF } from './closed.ts';

/** Stands for the producer of a job that does not name its own. */
export const NO_PRODUCER: ProducerLedger = { id: NIL, accepted: 0, dropped: 0 };

/**
 * How a writer counts in the ledger what became of a batch, in the transaction that
 * writes it. Parameters: `$1` a JSON array that says of each job how many events it has and what its
 * producer counted; `$2` the writer; `$3` the kind.
 *
 * Why the counts are exact, whatever is killed and when: they commit with the rows or not at all,
 * so a row is counted by the transaction that inserted it, and by no other. A batch that is written
 * again, since nobody heard of its commit, inserts nothing and counts duplicates. `accepted` and
 * `dropped` are the producer's own and only grow, so the greatest stands.
 *
 * Why nobody waits: a row of the ledger belongs to one writer and one kind, and a writer writes one
 * batch of a kind at a time. (A worker process that makes two is two writers.) The row is locked after all that other writers may wait for: what is
 * counted is not known before.
 */
const inLedger = (committed: string, duplicates: string, from = '') => `
INSERT INTO "EventLedger" AS l ("writerId", "producerId", "kind", "accepted", "dropped",
    "committed", "duplicates", "updatedAt")
  SELECT $2::uuid, j."id", $3, max(j."accepted"), max(j."dropped"), ${committed},
    ${duplicates}, now() AT TIME ZONE 'utc'
  FROM ROWS FROM (json_to_recordset($1::json) AS ("id" uuid, "accepted" bigint, "dropped" bigint,
      "events" int)) WITH ORDINALITY AS j ("id", "accepted", "dropped", "events", "place")${from}
  GROUP BY j."id" ORDER BY j."id"
  ON CONFLICT ("writerId", "producerId", "kind") DO UPDATE
  SET "accepted" = greatest(l."accepted", excluded."accepted"),
    "dropped" = greatest(l."dropped", excluded."dropped"),
    "committed" = l."committed" + excluded."committed",
    "duplicates" = l."duplicates" + excluded."duplicates",
    "updatedAt" = excluded."updatedAt"`;

/**
 * The end of a writer's statement. Before it stand the parts `event` (id, place: from 1), `inserted`
 * (id of each row that is new) and `waiting` (place, field, reference). `$5` are the places at which
 * the events of a job begin, in order. It returns how many rows were inserted, and what waits.
 */
export const LEDGER_END = `
, fresh AS (
  -- An id that is in the batch twice counts where it came first. Adding up needs no join, which
  -- the planner, who cannot know how long the batch is, might choose to do row by row.
  SELECT min("place") AS "place", 1 AS "fresh"
  FROM (
    SELECT "id", "place", 0 AS "rows" FROM event
    UNION ALL
    SELECT "id", NULL, 1 FROM inserted
  ) x
  GROUP BY "id" HAVING sum("rows") > 0
), outcome AS (
  SELECT width_bucket("place", $5::bigint[]) AS "job", sum("fresh") AS "fresh",
    sum("waiting") AS "waiting"
  FROM (
    SELECT "place", "fresh", 0 AS "waiting" FROM fresh
    UNION ALL
    SELECT "place", 0, 1 FROM waiting
  ) x
  GROUP BY 1
), in_ledger AS (${inLedger(
  'coalesce(sum(o."fresh"), 0)',
  'sum(j."events" - coalesce(o."fresh" + o."waiting", 0))',
  `
    LEFT JOIN outcome o ON o."job" = j."place"`,
)}
)
SELECT (SELECT count(*)::int FROM inserted) AS "inserted",
  coalesce((
    SELECT json_agg(json_build_object('index', "place" - 1, 'field', "field",
      'reference', "reference"))
    FROM waiting
  ), '[]') AS "waiting"`;

/** The same, by itself, where every event of the batch has become a row. */
export const LEDGER_OF_NEW = inLedger('sum(j."events")', '0');

/** What all writers together have counted of one producer's events of one kind. */
export interface LedgerEntry extends Record<LedgerFigure, number> {
  /** One of `CLOSED_SUMS` where it stands for all closed accounts that are not read by themselves. */
  producerId: string;
  kind: EventKind;
}

export type LedgerFigure = 'accepted' | 'dropped' | 'committed' | 'duplicates' | 'discarded';

/**
 * Reads the accounts of all producers that the ledger has heard of lately, and of those that are
 * asked for, each whole: with what is closed of it. The other closed ones are read as sums, which
 * balance as they would one by one (`closed.ts`).
 *
 * It is one statement, so it sees an account either before or after its being closed.
 *
 * @param producerIds - producers whose events were found elsewhere; what is no UUID is passed over
 */
export function readLedger(
  prisma: PrismaClient,
  producerIds: Iterable<string> = [],
): Promise<LedgerEntry[]> {
  const wanted = [NIL, ...producerIds].filter(validate);
  return prisma.$queryRaw<LedgerEntry[]>`
    WITH known AS (
      SELECT "producerId" FROM "EventLedger" UNION SELECT unnest(${wanted}::uuid[])
    ), closed AS MATERIALIZED (
      SELECT c.* FROM known k
        -- By key, whatever the planner thinks of it: there may be millions of them.
        CROSS JOIN LATERAL (
          SELECT * FROM "EventLedgerClosed" c WHERE c."producerId" = k."producerId" OFFSET 0
        ) c
    ), account AS (
      SELECT "producerId", "kind", max("accepted") AS "accepted", max("dropped") AS "dropped",
        sum("committed") AS "committed", sum("duplicates") AS "duplicates",
        sum("discarded") AS "discarded"
      FROM (
        SELECT "producerId", "kind", "accepted", "dropped", "committed", "duplicates", "discarded"
        FROM "EventLedger"
        UNION ALL TABLE closed
      ) x
      GROUP BY 1, 2
      UNION ALL
      SELECT "producerId", "kind", sum("accepted"), sum("dropped"), sum("committed"),
        sum("duplicates"), sum("discarded")
      FROM (
        SELECT * FROM "EventLedgerClosed" WHERE "producerId" = ANY (${CLOSED_SUMS}::uuid[])
        UNION ALL
        SELECT ${Prisma.raw(SUM_OF)}, "kind", -"accepted", -"dropped", -"committed", -"duplicates",
          -"discarded"
        FROM closed
      ) x
      GROUP BY 1, 2
    )
    SELECT "producerId"::text, "kind", "accepted"::float8, "dropped"::float8,
      "committed"::float8, "duplicates"::float8, "discarded"::float8
    FROM account`;
}
