import type { PrismaClient } from '../database/client.ts';

/*
 * What no batch has touched for a day leaves the ledger for `EventLedgerClosed`, which has one row
 * for each producer and kind and is only ever read by key. So what the board reads each second, and
 * the audit holds in memory, is what came about lately, however many workers and producers there were.
 *
 * Closed is not forgotten. A producer may speak again after any time: a dead letter is retried, a
 * spool comes back with its machine, a server that rarely emits does. What such an envelope tells it
 * has accepted includes what was closed, so its account is right only together with its closed row.
 * Readers therefore join the two, and the next closing does; nothing depends on how long a day is.
 *
 * The closed accounts that a reader does not look at by themselves it sees as sums. An audit balances
 * each producer by itself, so that what one has too many does not hide what another lacks; sums must
 * not hide it either. Hence three of them, by how an account balances in itself:
 *
 *     gap = accepted - committed - dropped - discarded
 *     even   0 <= gap <= duplicates   all is repeated, nothing unaccounted for
 *     short  gap > duplicates         all duplicates are repeated, the rest is unaccounted for
 *     over   gap < 0                  nothing is either
 *
 * Within each, every figure of the balance (src/audit/accounts.ts) is a sum of the same figures, so the
 * balance of the sum is the sum of the balances.
 */

const SUMS = { even: 1, short: 2, over: 3 };
const idOf = (sum: keyof typeof SUMS) => `00000000-0000-0000-0000-00000000000${SUMS[sum]}`;

/** Stand for producers in the rows of `EventLedgerClosed` that hold its sums; no UUIDs of a version. */
export const CLOSED_SUMS = (Object.keys(SUMS) as (keyof typeof SUMS)[]).map(idOf);

/** SQL: the sum that a row of `EventLedgerClosed` is part of. */
export const SUM_OF = `CASE
  WHEN "accepted" - "committed" - "dropped" - "discarded" < 0 THEN '${idOf('over')}'
  WHEN "accepted" - "committed" - "dropped" - "discarded" > "duplicates" THEN '${idOf('short')}'
  ELSE '${idOf('even')}' END::uuid`;

/** Rows of the ledger that nothing has touched for this long are closed. */
const IDLE_FOR = '1 day';

/** Rows that are closed at a time. Who writes to one of them waits for that, some 0.1 s. */
const CHUNK = 5000;

const CLOSE = `
WITH idle AS (
  SELECT "writerId", "producerId", "kind" FROM "EventLedger"
  WHERE "updatedAt" < now() AT TIME ZONE 'utc' - $1::text::interval
  LIMIT $2 FOR UPDATE SKIP LOCKED
), gone AS (
  DELETE FROM "EventLedger" l USING idle i
  WHERE (l."writerId", l."producerId", l."kind") = (i."writerId", i."producerId", i."kind")
  RETURNING l.*
), account AS (
  SELECT "producerId", "kind", max("accepted") AS "accepted", max("dropped") AS "dropped",
    sum("committed") AS "committed", sum("duplicates") AS "duplicates",
    sum("discarded") AS "discarded"
  FROM gone GROUP BY 1, 2
), before AS MATERIALIZED (
  SELECT c.* FROM account a
    CROSS JOIN LATERAL (
      SELECT * FROM "EventLedgerClosed" c
      WHERE (c."producerId", c."kind") = (a."producerId", a."kind") OFFSET 0
    ) c
), after AS (
  INSERT INTO "EventLedgerClosed" AS c ("producerId", "kind", "accepted", "dropped", "committed",
    "duplicates", "discarded")
  SELECT * FROM account
  ON CONFLICT ("producerId", "kind") DO UPDATE
  SET "accepted" = greatest(c."accepted", excluded."accepted"),
    "dropped" = greatest(c."dropped", excluded."dropped"),
    "committed" = c."committed" + excluded."committed",
    "duplicates" = c."duplicates" + excluded."duplicates",
    "discarded" = c."discarded" + excluded."discarded"
  RETURNING *
), sums AS (
  INSERT INTO "EventLedgerClosed" AS c ("producerId", "kind", "accepted", "dropped", "committed",
    "duplicates", "discarded")
  SELECT "sum", "kind", sum("sign" * "accepted"), sum("sign" * "dropped"),
    sum("sign" * "committed"), sum("sign" * "duplicates"), sum("sign" * "discarded")
  FROM (
    SELECT ${SUM_OF} AS "sum", 1 AS "sign", * FROM after
    UNION ALL SELECT ${SUM_OF}, -1, * FROM before
  ) x
  GROUP BY 1, 2
  ON CONFLICT ("producerId", "kind") DO UPDATE
  SET "accepted" = c."accepted" + excluded."accepted",
    "dropped" = c."dropped" + excluded."dropped",
    "committed" = c."committed" + excluded."committed",
    "duplicates" = c."duplicates" + excluded."duplicates",
    "discarded" = c."discarded" + excluded."discarded"
)
SELECT count(*)::int AS "rows" FROM gone`;

/**
 * Closes what is idle, a chunk at a time. Any number of processes may do this at once, beside workers.
 *
 * A chunk is one statement: rows, closed accounts and sums change together, so readers, which are one
 * statement too, see all of it or nothing. `before` is as it was only if nobody else writes there
 * meanwhile: only this function does, one call at a time, and its lock is a statement before, so
 * that the snapshot is younger. A batch that is at a row just now keeps it (SKIP LOCKED; one that has
 * committed since the snapshot made it young, which is looked at again as the row is locked). One
 * that comes to a row while this deletes it waits, finds it gone and begins a new one. Nobody waits
 * in a circle, since this waits for no row of the ledger.
 *
 * @param chunk - rows at a time; for tests
 * @throws the signal's reason when that is aborted, between two chunks
 */
export async function closeIdleAccounts(
  prisma: PrismaClient,
  { signal, chunk = CHUNK }: { signal?: AbortSignal; chunk?: number } = {},
): Promise<void> {
  for (let rows = chunk; rows === chunk;) {
    signal?.throwIfAborted();
    const [, [closed]] = await prisma.$transaction([
      prisma.$queryRaw`SELECT pg_advisory_xact_lock(hashtext('annals_ledger'))::text`,
      prisma.$queryRawUnsafe<{ rows: number }[]>(CLOSE, IDLE_FOR, chunk),
    ]);
    rows = closed?.rows ?? 0;
  }
}
