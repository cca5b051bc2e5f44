import { one, type Sql } from './database.ts';
import { keysBetween, type Transform } from './transform.ts';
import { CHUNK_ROWS, firstChunkRows } from './tuner.ts';

/** What a run does with a table, in this order, and what takes it back. */
export type Phase = 'fill' | 'check' | 'settle' | 'undo';

/** Keys that are looked at to place the bounds of lanes. */
const SAMPLE_ROWS = 20_000;

/**
 * Splits a table's keys into ranges that hold about as many rows each. The keys may be texts of
 * any shape: their bounds are quantiles of a sample.
 *
 * @param rows - rows of the table, about
 * @returns the last keys of all ranges but the last
 */
export async function sampleBounds(
  sql: Sql,
  table: string,
  rows: number,
  lanes: number,
): Promise<string[]> {
  if (lanes < 2 || rows < 2 * CHUNK_ROWS.min) return [];
  const percent = Math.min(100, (100 * SAMPLE_ROWS) / rows);
  const fractions = Array.from({ length: lanes - 1 }, (_, index) => (index + 1) / lanes);
  const { bounds } = await one<{ bounds: string[] | null }>(
    sql,
    `SELECT percentile_disc($1::float8[]) WITHIN GROUP (ORDER BY "id") AS "bounds"
     FROM "${table}" TABLESAMPLE SYSTEM (${percent})`,
    [fractions],
  );
  return [...new Set(bounds ?? [])];
}

/** Opens one lane for each range between the bounds. */
export async function openLanes(
  sql: Sql,
  runId: string,
  phase: Phase,
  bounds: readonly (string | null)[],
  chunkRows: number = CHUNK_ROWS.first,
): Promise<void> {
  const cursors = bounds.slice(0, -1);
  const highKeys = bounds.slice(1);
  await sql.query(
    `INSERT INTO "BackfillLane" ("runId", "phase", "cursor", "highKey", "chunkRows", "dueAt")
     SELECT $1, $2, range.cursor, range.high, $5, now() AT TIME ZONE 'utc'
     FROM unnest($3::text[], $4::text[]) AS range (cursor, high)`,
    [runId, phase, cursors, highKeys, chunkRows],
  );
}

/** Keys that are looked at to halve a lane. */
const HALVING_ROWS = 2000;

/**
 * Where a run has fewer lanes at work than it may have, since one has run dry, the lane that is
 * under the caller's lock gives the later half of its keys to a new one. Every key is in one lane
 * at any time: the old bound moves, and the new lane is opened, in the chunk's transaction.
 *
 * @returns whether it did
 */
export async function shareLane(
  sql: Sql,
  lane: {
    id: number;
    runId: string;
    highKey: string | null;
    chunkRows: number;
    transform: Transform;
  },
  cursor: string | null,
  lanes: number,
): Promise<boolean> {
  const { table, maxLanes = Infinity } = lane.transform;
  const { open, rows } = await one<{ open: number; rows: number }>(
    sql,
    `SELECT count(*)::int AS "open", r."totalRows" AS "rows"
     FROM "BackfillLane" l JOIN "BackfillRun" r ON r."id" = l."runId"
     WHERE l."runId" = $1 AND NOT l."isDone" GROUP BY r."totalRows"`,
    [lane.runId],
  );
  if (open >= Math.min(lanes, maxLanes) || rows === 0) return false;
  const percent = Math.min(100, (100 * HALVING_ROWS) / rows);
  const keys = keysBetween(cursor, lane.highKey);
  const { middle, found } = await one<{ middle: string | null; found: number }>(
    sql,
    `SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY t."id") AS "middle", count(*)::int AS "found"
     FROM "${table}" t TABLESAMPLE SYSTEM (${percent}) WHERE ${keys.sql(1)}`,
    keys.params,
  );
  // Less than a few chunks are sooner done than divided.
  if (middle === null || (found * 100) / percent < 4 * lane.chunkRows) return false;
  await openLanes(sql, lane.runId, 'fill', [middle, lane.highKey], lane.chunkRows);
  await sql.query(`UPDATE "BackfillLane" SET "highKey" = $2 WHERE "id" = $1`, [lane.id, middle]);
  return true;
}

/** Opens lanes over the whole table, from its start to its end. */
export async function openFillLanes(
  sql: Sql,
  runId: string,
  { table, maxLanes = Infinity }: Transform,
  rows: number,
  { lanes, maxChunkRows }: { lanes: number; maxChunkRows: number },
): Promise<void> {
  const bounds = await sampleBounds(sql, table, rows, Math.min(lanes, maxLanes));
  const { bytes } = await one<{ bytes: number }>(
    sql,
    `SELECT pg_table_size(to_regclass(quote_ident($1)))::float8 AS "bytes"`,
    [table],
  );
  const chunkRows = Math.min(maxChunkRows, firstChunkRows(bytes / Math.max(1, rows)));
  await openLanes(sql, runId, 'fill', [null, ...bounds, null], chunkRows);
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
  const count = Math.max(1, Math.min(lanes, maxLanes, last - first + 1));
  const bounds = Array.from({ length: count + 1 }, (_, index) =>
    String(first - 1 + Math.round(((last - first + 1) * index) / count)),
  );
  await openLanes(sql, runId, phase, bounds);
}
