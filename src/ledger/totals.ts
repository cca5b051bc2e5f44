import { EVENT_KINDS, type EventKind } from '../queues/events.ts';
import type { LedgerFigure } from './ledger.ts';

/** Events of a kind by what became of them, over all processes and restarts. */
export type Totals = Readonly<Record<EventKind, Readonly<Record<LedgerFigure, number>>>>;

/** A client or a pool of `pg`, or what does as these do. */
interface Readable {
  query(sql: string): Promise<{ rows: unknown[] }>;
}

const READ = `
SELECT "kind", sum("accepted")::float8 AS "accepted", sum("dropped")::float8 AS "dropped",
  sum("committed")::float8 AS "committed", sum("duplicates")::float8 AS "duplicates",
  sum("discarded")::float8 AS "discarded"
FROM (
  SELECT "kind", max("accepted") AS "accepted", max("dropped") AS "dropped",
    sum("committed") AS "committed", sum("duplicates") AS "duplicates",
    sum("discarded") AS "discarded"
  FROM "EventLedger" GROUP BY "kind", "producerId"
) of_producer
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
