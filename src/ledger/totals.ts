import { EVENT_KINDS, type EventKind } from '../queues/events.ts';
import { CLOSED_SUMS } from './closed.ts';
import type { LedgerFigure } from './ledger.ts';

/** Events of a kind by what became of them, over all processes and restarts. */
export type Totals = Readonly<Record<EventKind, Readonly<Record<LedgerFigure, number>>>>;

/** A client or a pool of `pg`, or what does as these do. */
interface Readable {
  query(sql: string): Promise<{ rows: unknown[] }>;
}

/*
 * The sums of what is closed, and what came since then. What a producer tells includes what of it is
 * closed; that is looked up by key, whatever the planner thinks of it: there may be millions.
 */
const READ = `
SELECT "kind", sum("accepted")::float8 AS "accepted", sum("dropped")::float8 AS "dropped",
  sum("committed")::float8 AS "committed", sum("duplicates")::float8 AS "duplicates",
  sum("discarded")::float8 AS "discarded"
FROM (
  SELECT "kind", greatest(l."accepted" - coalesce(c."accepted", 0), 0) AS "accepted",
    greatest(l."dropped" - coalesce(c."dropped", 0), 0) AS "dropped", l."committed",
    l."duplicates", l."discarded"
  FROM (
    SELECT "kind", "producerId", max("accepted") AS "accepted", max("dropped") AS "dropped",
      sum("committed") AS "committed", sum("duplicates") AS "duplicates",
      sum("discarded") AS "discarded"
    FROM "EventLedger" GROUP BY "kind", "producerId"
  ) l LEFT JOIN LATERAL (
    SELECT "accepted", "dropped" FROM "EventLedgerClosed" c
    WHERE (c."producerId", c."kind") = (l."producerId", l."kind") OFFSET 0
  ) c ON true
  UNION ALL
  SELECT "kind", "accepted", "dropped", "committed", "duplicates", "discarded"
  FROM "EventLedgerClosed" WHERE "producerId" IN ('${CLOSED_SUMS.join("', '")}')
) x
GROUP BY "kind"`;

/** What the tables hold at the same moment, since the ledger is written in the same transactions. */
export async function readTotals(database: Readable): Promise<Totals> {
  const { rows } = await database.query(READ);
  const found = new Map(
    (rows as (Totals[EventKind] & { kind: EventKind })[]).map(({ kind, ...rest }) => [kind, rest]),
  );
  return Object.fromEntries(
    EVENT_KINDS.map((kind) => [kind, found.get(kind) ?? NOTHING]),
  ) as Totals;
}

const NOTHING = { accepted: 0, dropped: 0, committed: 0, duplicates: 0, discarded: 0 };
