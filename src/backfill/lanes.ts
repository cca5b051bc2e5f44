import { one, type Sql } from './database.ts';
import type { Rows, Transform } from './transform.ts';
import { CHUNK_ROWS, firstChunkRows } from './tuner.ts';

/** What a run does with a table, in this order, and what takes it back. */
export type Phase = 'fill' | 'check' | 'sweep' | 'settle' | 'undo';

/**
 * Where a lane is. While a table is filled in, places are those of its rows on disk: block and
 * row within it. So every block is read once and in order, whatever the keys look like, and ranges
 * are divided by arithmetic. For what goes over the log they are ids of its entries.
 */
export type Place = number;

/** Places in a block: a row's number within it is a 16-bit one, from 1. */
export const PLACES_PER_BLOCK = 2 ** 16;

/** SQL of the place of the row `t`. */
export const PLACE = `(t."ctid"::text::point)[0] * ${PLACES_PER_BLOCK} + (t."ctid"::text::point)[1]`;

const toCtid = (place: Place) =>
  `(${Math.floor(place / PLACES_PER_BLOCK)},${place % PLACES_PER_BLOCK})`;

/** Rows after the place `after` and up to the place `upTo`. */
export const rowsBetween = (after: Place, upTo: Place): Rows => ({
  params: [toCtid(after), toCtid(upTo)],
  sql: (first) => `t."ctid" > $${first}::tid AND t."ctid" <= $${first + 1}::tid`,
});

/** Opens one lane for each range between the bounds. */
export async function openLanes(
  sql: Sql,
  runId: string,
  phase: Phase,
  bounds: readonly Place[],
  chunkRows: number = CHUNK_ROWS.first,
): Promise<void> {
  await sql.query(
    `INSERT INTO "BackfillLane" ("runId", "phase", "low", "cursor", "high", "chunkRows", "dueAt", "movedAt")
     SELECT $1, $2, range.low, range.low, range.high, $5, now() AT TIME ZONE 'utc', clock_timestamp() AT TIME ZONE 'utc'
     FROM unnest($3::bigint[], $4::bigint[]) AS range (low, high)`,
    [runId, phase, bounds.slice(0, -1), bounds.slice(1), chunkRows],
  );
}

/** Opens a lane for what looks at the whole table at one moment. */
export const openSettleLane = (sql: Sql, runId: string) => openLanes(sql, runId, 'settle', [0, 1]);

/** Bounds of about as many equal ranges as are wanted, in whole steps. */
function divide(low: Place, high: Place, ranges: number, step: number): Place[] {
  const steps = Math.max(1, Math.round((high - low) / step));
  const count = Math.max(1, Math.min(ranges, steps));
  const inner = Array.from(
    { length: count - 1 },
    (_, index) => low + step * Math.round((steps * (index + 1)) / count),
  );
  return [low, ...inner, high];
}

/** Opens lanes over all the blocks that the table has now. What is added later settles. */
export async function openTableLanes(
  sql: Sql,
  runId: string,
  phase: 'fill' | 'sweep',
  { table, maxLanes = Infinity }: Transform,
  rows: number,
  { lanes, maxChunkRows }: { lanes: number; maxChunkRows: number },
): Promise<void> {
  const { blocks, bytes, tuned } = await one<{
    blocks: number;
    bytes: number;
    tuned: number | null;
  }>(
    sql,
    `SELECT (pg_relation_size(t) / current_setting('block_size')::int)::float8 AS "blocks",
       pg_table_size(t)::float8 AS "bytes",
       (SELECT min("chunkRows") FROM "BackfillLane" WHERE "runId" = $2 AND "phase" = 'fill') AS "tuned"
     FROM to_regclass(quote_ident($1)) AS t`,
    [table, runId],
  );
  const chunkRows = Math.min(maxChunkRows, tuned ?? firstChunkRows(bytes / Math.max(1, rows)));
  const end = blocks * PLACES_PER_BLOCK;
  const bounds = divide(0, end, Math.min(lanes, maxLanes), PLACES_PER_BLOCK);
  await openLanes(sql, runId, phase, bounds, chunkRows);
}

/** Opens lanes over what backfills of the table have written so far. */
export async function openLogLanes(
  sql: Sql,
  runId: string,
  phase: 'check' | 'undo',
  { name, maxLanes = Infinity }: Transform,
  lanes: number,
): Promise<void> {
  const { first, last } = await one<{ first: number; last: number }>(
    sql,
    `SELECT coalesce(min("id"), 1) AS "first", coalesce(max("id"), 0) AS "last"
     FROM "BackfillUndo" WHERE "tableName" = $1`,
    [name],
  );
  await openLanes(sql, runId, phase, divide(first - 1, last, Math.min(lanes, maxLanes), 1));
}

/**
 * Where a run has fewer lanes at work than it may have, since one has run dry, the lane that is
 * under the caller's lock gives the later half of its blocks to a new one. Every place is in one
 * lane at any time: the old bound moves, and the new lane is opened, in the chunk's transaction.
 *
 * @param cursor - where the lane is after this chunk
 * @param passed - rows that it has passed so far
 * @returns whether it did
 */
export async function shareLane(
  sql: Sql,
  lane: {
    id: number;
    runId: string;
    phase: Phase;
    low: Place;
    high: Place;
    chunkRows: number;
    transform: Transform;
  },
  cursor: Place,
  passed: number,
  lanes: number,
): Promise<boolean> {
  const rowsLeft = (passed * (lane.high - cursor)) / Math.max(1, cursor - lane.low);
  // Less than a few chunks are sooner done than divided.
  if (rowsLeft < 4 * lane.chunkRows) return false;
  const { open } = await one<{ open: number }>(
    sql,
    `SELECT count(*)::int AS "open" FROM "BackfillLane" WHERE "runId" = $1 AND NOT "isDone"`,
    [lane.runId],
  );
  if (open >= Math.min(lanes, lane.transform.maxLanes ?? Infinity)) return false;
  const middle = Math.floor((cursor + lane.high) / 2 / PLACES_PER_BLOCK) * PLACES_PER_BLOCK;
  if (middle <= cursor) return false;
  await openLanes(sql, lane.runId, lane.phase, [middle, lane.high], lane.chunkRows);
  await sql.query(`UPDATE "BackfillLane" SET "high" = $2 WHERE "id" = $1`, [lane.id, middle]);
  return true;
}
