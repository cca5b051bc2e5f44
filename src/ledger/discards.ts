import { v5 as uuidv5 } from 'uuid';

import type { PrismaClient } from '../database/client.ts';
import type { ProducerLedger } from '../queues/envelope.ts';
import type { EventKind } from '../queues/events.ts';

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

/**
 * The time of a discard whose job may still be there. While it is, somebody may discard it again,
 * and only this row, which is not closed before its time, keeps it from being counted twice.
 */
const UNSETTLED = '9999-12-31';

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
      ${UNSETTLED}::timestamp
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

/**
 * Notes that the jobs are gone for good. Their rows stay for a day more, since others may have
 * read a job before it went and be about to count it; then they may be closed with the others.
 * (Cut off before this, a row stays for ever: that costs some bytes, and no event.)
 */
export async function settleDiscards(
  prisma: PrismaClient,
  discards: readonly Discard[],
): Promise<void> {
  const writers = discards.map(writerOf);
  await prisma.$executeRaw`
    UPDATE "EventLedger" SET "updatedAt" = now() AT TIME ZONE 'utc'
    WHERE "writerId" = ANY (${writers}::uuid[])`;
}
