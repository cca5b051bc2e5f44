import { NIL, v5 as uuidv5 } from 'uuid';

import type { PrismaClient } from '../database/client.ts';
import type { ProducerLedger } from '../queues/envelope.ts';
import type { EventKind } from '../queues/events.ts';

/** Stands for the producer of a job that does not name its own. */
export const NO_PRODUCER: ProducerLedger = { id: NIL, accepted: 0, dropped: 0 };

/**
 * The end of every writer's statement: it counts what became of the batch, in the transaction that
 * writes it. Before it stand the parts `event` (id, place: from 1), `inserted` (id of each row that
 * is new) and `waiting` (place, field, reference). Parameters: `$2` the places at which the events
 * of a job begin, in order; `$3` a JSON array that says of each job how many events it has and what
 * its producer counted; `$4` the writer; `$5` the kind.
 *
 * Why the counts are exact, whatever is killed and when: they commit with the rows or not at all,
 * so a row is counted by the statement that inserted it, and by no other. A batch that is written
 * again, since nobody heard of its commit, inserts nothing and counts duplicates. `accepted` and
 * `dropped` are the producer's own and only grow, so the greatest stands.
 *
 * Why nobody waits: a row of the ledger belongs to one writer and one kind, and a writer writes one
 * batch of a kind at a time. The row is locked last, after all that other writers may wait for.
 */
const end = (fresh: string) => `
, fresh AS (${fresh}
), outcome AS (
  SELECT width_bucket("place", $2::bigint[]) AS "job", sum("fresh") AS "fresh",
    sum("waiting") AS "waiting"
  FROM (
    SELECT "place", "fresh", 0 AS "waiting" FROM fresh
    UNION ALL
    SELECT "place", 0, 1 FROM waiting
  ) x
  GROUP BY 1
), in_ledger AS (
  INSERT INTO "EventLedger" AS l ("writerId", "producerId", "kind", "accepted", "dropped",
    "committed", "duplicates", "updatedAt")
  SELECT $4::uuid, j."id", $5, max(j."accepted"), max(j."dropped"), coalesce(sum(o."fresh"), 0),
    sum(j."events" - coalesce(o."fresh" + o."waiting", 0)), now() AT TIME ZONE 'utc'
  FROM ROWS FROM (json_to_recordset($3::json) AS ("id" uuid, "accepted" bigint, "dropped" bigint,
      "events" int)) WITH ORDINALITY AS j ("id", "accepted", "dropped", "events", "place")
    LEFT JOIN outcome o ON o."job" = j."place"
  GROUP BY j."id" ORDER BY j."id"
  ON CONFLICT ("writerId", "producerId", "kind") DO UPDATE
  SET "accepted" = greatest(l."accepted", excluded."accepted"),
    "dropped" = greatest(l."dropped", excluded."dropped"),
    "committed" = l."committed" + excluded."committed",
    "duplicates" = l."duplicates" + excluded."duplicates",
    "updatedAt" = excluded."updatedAt"
)
SELECT (SELECT count(*)::int FROM inserted) AS "inserted",
  coalesce((
    SELECT json_agg(json_build_object('index', "place" - 1, 'field', "field",
      'reference', "reference"))
    FROM waiting
  ), '[]') AS "waiting"`;

export const LEDGER_END = end(`
  -- An id that is in the batch twice counts where it came first. Adding up needs no join, which
  -- the planner, who cannot know how long the batch is, might choose to do row by row.
  SELECT min("place") AS "place", 1 AS "fresh"
  FROM (
    SELECT "id", "place", 0 AS "rows" FROM event
    UNION ALL
    SELECT "id", NULL, 1 FROM inserted
  ) x
  GROUP BY "id" HAVING sum("rows") > 0`);

/** The same where \`inserted\` has each event but those that wait, or the statement fails. */
export const LEDGER_END_OF_NEW = end(`
  SELECT "place", 1 AS "fresh" FROM event
  UNION ALL
  SELECT "place", -1 FROM waiting`);

/** Rows of writers that have not been at work for this long are added up. */
const MERGE_AFTER = '1 day';

/**
 * Adds up the rows of writers that are gone, so that restarts do not make the ledger grow. One
 * statement moves a row and its sum together. Of a writer that is not gone after all (a stopped
 * process that goes on) it either finds the row too young, after waiting for its batch, or takes
 * it before the batch, which then begins a new one.
 */
export async function mergeLedger(prisma: PrismaClient): Promise<void> {
  await prisma.$transaction([
    // One at a time: two would meet in the sums, in any order.
    prisma.$queryRaw`SELECT pg_advisory_xact_lock(hashtext('annals_ledger'))::text`,
    prisma.$executeRaw`
      WITH gone AS (
        DELETE FROM "EventLedger"
        WHERE "writerId" <> ${NIL}::uuid
          AND "updatedAt" < now() AT TIME ZONE 'utc' - ${MERGE_AFTER}::text::interval
          AND "discarded" = 0 -- whose own rows keep a repeated discard from counting twice
        RETURNING *
      )
      INSERT INTO "EventLedger" AS l ("writerId", "producerId", "kind", "accepted", "dropped",
        "committed", "duplicates", "discarded", "updatedAt")
      SELECT ${NIL}::uuid, "producerId", "kind", max("accepted"), max("dropped"),
        sum("committed"), sum("duplicates"), sum("discarded"), max("updatedAt")
      FROM gone GROUP BY "producerId", "kind"
      ON CONFLICT ("writerId", "producerId", "kind") DO UPDATE
      SET "accepted" = greatest(l."accepted", excluded."accepted"),
        "dropped" = greatest(l."dropped", excluded."dropped"),
        "committed" = l."committed" + excluded."committed",
        "duplicates" = l."duplicates" + excluded."duplicates",
        "discarded" = l."discarded" + excluded."discarded",
        "updatedAt" = greatest(l."updatedAt", excluded."updatedAt")`,
  ]);
}

/** A dead letter that is given up. */
export interface Discard {
  kind: EventKind;
  jobId: string;
  /** Milliseconds since 1970 at which the job was made; an emptied queue gives ids out again. */
  madeAt: number;
  producer: ProducerLedger;
  events: number;
}

/** Any UUID would do, as long as it stays. */
const DISCARDS = '0b8f3c52-6d0e-4f3a-9f43-2f6d3c0f7a11';

/** The writer of a discard's row is the job itself, which can be discarded only once. */
const writerOf = ({ kind, jobId, madeAt }: Discard) =>
  uuidv5(`${kind} ${jobId} ${madeAt}`, DISCARDS);

/** Counts dead letters as discarded, before they are removed; once, however often it is told. */
export async function countDiscards(
  prisma: PrismaClient,
  discards: readonly Discard[],
): Promise<void> {
  const rows = discards.map((discard) => ({
    writerId: writerOf(discard),
    producerId: discard.producer.id,
    kind: discard.kind,
    accepted: discard.producer.accepted,
    dropped: discard.producer.dropped,
    discarded: discard.events,
  }));
  await prisma.$executeRaw`
    INSERT INTO "EventLedger" ("writerId", "producerId", "kind", "accepted", "dropped",
      "discarded", "updatedAt")
    SELECT "writerId", "producerId", "kind", "accepted", "dropped", "discarded",
      now() AT TIME ZONE 'utc'
    FROM json_to_recordset(${JSON.stringify(rows)}::json) AS ("writerId" uuid, "producerId" uuid,
      "kind" text, "accepted" bigint, "dropped" bigint, "discarded" bigint)
    ORDER BY "writerId"
    ON CONFLICT DO NOTHING`;
}

/** Takes back what `countDiscards` counted, for jobs that turned out to be in use again. */
export async function uncountDiscards(
  prisma: PrismaClient,
  discards: readonly Discard[],
): Promise<void> {
  const writers = discards.map(writerOf);
  await prisma.$executeRaw`DELETE FROM "EventLedger" WHERE "writerId" = ANY (${writers}::uuid[])`;
}

/** What all writers together have counted of one producer's events of one kind. */
export interface LedgerEntry extends Record<LedgerFigure, number> {
  producerId: string;
  kind: EventKind;
}

export type LedgerFigure = 'accepted' | 'dropped' | 'committed' | 'duplicates' | 'discarded';

export function readLedger(prisma: PrismaClient): Promise<LedgerEntry[]> {
  return prisma.$queryRaw<LedgerEntry[]>`
    SELECT "producerId"::text, "kind", max("accepted")::float8 AS "accepted",
      max("dropped")::float8 AS "dropped", sum("committed")::float8 AS "committed",
      sum("duplicates")::float8 AS "duplicates", sum("discarded")::float8 AS "discarded"
    FROM "EventLedger" GROUP BY "producerId", "kind"`;
}
