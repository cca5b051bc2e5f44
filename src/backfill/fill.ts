import { serverMessage } from '../database/faults.ts';
import { one, type Sql } from './database.ts';
import { PLACE, PLACES_PER_BLOCK, rowsBetween, type Place } from './lanes.ts';
import { byParts, isRefusal, quarantine } from './parts.ts';
import {
  fillSql,
  inputSizeSql,
  inputSql,
  needs,
  withIds,
  type Rows,
  type Transform,
} from './transform.ts';

/**
 * Fills in rows within the caller's transaction; returns how many were changed. A row of which
 * nothing can be computed, such as JSON of a depth that no stack holds, is set apart.
 */
export async function fill(
  sql: Sql,
  transform: Transform,
  runId: string,
  rows: Rows,
): Promise<number> {
  let computed = '{}';
  const { computation } = transform;
  if (computation) {
    const inputs = await sql.query<RowInput>(inputSql(transform, computation, rows), rows.params);
    computed = await computeAll(sql, runId, inputs.rows, computation.compute);
  }
  const params = [computed, runId, ...rows.params];
  return (await one<{ changed: number }>(sql, fillSql(transform, rows), params)).changed;
}

/** Does the same for rows that are named, however many and however large, by parts that fit into memory. */
export async function fillIds(
  sql: Sql,
  transform: Transform,
  runId: string,
  ids: readonly string[],
): Promise<number> {
  const work = async (some: readonly string[]) => {
    let changed = 0;
    for (const part of await fitting(sql, transform, some)) {
      changed += await fill(sql, transform, runId, withIds(part));
    }
    return changed;
  };
  let changed = 0;
  for (let first = 0; first < ids.length; first += PART_ROWS) {
    changed += await byParts(sql, runId, ids.slice(first, first + PART_ROWS), work);
  }
  return changed;
}

/** Rows that are named in one statement at most. */
const PART_ROWS = 500;

/** Parts whose inputs are fetched together: one row at least, and `MAX_INPUT_BYTES` at most if they are more. */
async function fitting(
  sql: Sql,
  transform: Transform,
  ids: readonly string[],
): Promise<(readonly string[])[]> {
  const { computation } = transform;
  if (!computation) return [ids];
  const { rows } = await sql.query<{ id: string; bytes: number }>(
    inputSizeSql(transform, computation),
    [ids],
  );
  const parts: string[][] = [];
  let room = 0;
  for (const { id, bytes } of rows) {
    if (bytes > room) {
      parts.push([]);
      room = MAX_INPUT_BYTES;
    }
    parts.at(-1)?.push(id);
    room -= bytes;
  }
  return parts;
}

export interface RowInput {
  id: string;
  input: string;
}

/**
 * The computed values as a JSON object by id.
 *
 * @param runId - whose quarantine takes what cannot be computed; without one it is left out
 */
export async function computeAll(
  sql: Sql,
  runId: string | undefined,
  inputs: readonly RowInput[],
  compute: (input: string) => string,
): Promise<string> {
  const values = Object.create(null) as Record<string, string>; // an id may be `__proto__`
  for (const { id, input } of inputs) {
    try {
      values[id] = compute(input);
    } catch (error) {
      if (runId !== undefined) await quarantine(sql, runId, id, `not computed: ${String(error)}`);
    }
  }
  return JSON.stringify(values);
}

export interface Progress {
  /** The last place that was passed. */
  cursor: Place;
  passed: number;
  changed: number;
  /** Whether there are no more places. */
  isDone: boolean;
  /** Whether it tells how long so many rows take: not so a last chunk, a sparse one, or one that was halved. */
  isTelling?: boolean;
}

/** Milliseconds after which a chunk that has to be halved commits what it has. */
const HALVING_MS = 2000;

/**
 * Passes the next rows after the cursor, about `limit`. A part that the database refuses for its
 * data is rolled back and halved, down to the row that is at fault, which goes into quarantine;
 * the parts before it stand. Parts grow again behind it, so a bad row costs about twice the
 * chunk's work.
 */
export async function fillChunk(
  sql: Sql,
  transform: Transform,
  runId: string,
  { cursor, high }: { cursor: Place; high: Place },
  limit: number,
): Promise<Progress> {
  const startedAt = performance.now();
  const chunk = await nextPart(sql, transform, cursor, high, limit);
  const progress = { cursor, passed: 0, changed: 0 };
  let size = limit;
  let isWhole = true;
  let refusals = 0;
  for (let next: Part | undefined = chunk; progress.cursor < chunk.end; next = undefined) {
    const part = next ?? (await nextPart(sql, transform, progress.cursor, chunk.end, size));
    try {
      await sql.query('SAVEPOINT part');
      if (part.rows > 0) {
        const rows = rowsBetween(progress.cursor, part.end);
        progress.changed += await fill(sql, transform, runId, rows);
      }
      await sql.query('RELEASE SAVEPOINT part');
    } catch (error) {
      if (!isRefusal(error)) throw error;
      await sql.query('ROLLBACK TO SAVEPOINT part');
      size = Math.ceil(part.rows / 2);
      isWhole = false;
      // A row alone is tried twice: a unique key that another transaction filled in at the same
      // moment is seen, and respected, by the statement that comes after it.
      if (part.rows > 1 || refusals++ < 1) continue;
      await quarantinePart(sql, transform, runId, progress.cursor, part.end, serverMessage(error));
    }
    refusals = 0;
    progress.cursor = part.end;
    progress.passed += part.rows;
    if (size < limit && performance.now() - startedAt > HALVING_MS) break;
    size *= 2;
  }
  const isDone = progress.cursor >= high;
  return { ...progress, isDone, isTelling: isWhole && !isDone && progress.passed * 2 > limit };
}

interface Part {
  end: Place;
  rows: number;
}

/**
 * Blocks in a chunk at most, for each row that it may have: where they hold few rows or none, it
 * is reading them that takes its time, and a chunk that takes too long is cut.
 */
const BLOCKS_PER_ROW = 8;

/**
 * Bytes of what is fetched to be computed from, at most, as they are on disk (the text may be some
 * times as long): where wide rows follow narrow ones, a chunk of as many rows would not fit into memory.
 */
const MAX_INPUT_BYTES = 16 * 1024 * 1024;

/**
 * Where about the next `limit` rows end. A part ends between two blocks, unless it is in one: so
 * a block is written by one chunk, and what a chunk writes to its own blocks is behind it. A
 * range of places is read in their order; were it not, the rows left out would be swept up.
 */
async function nextPart(
  sql: Sql,
  transform: Transform,
  after: Place,
  high: Place,
  limit: number,
): Promise<Part> {
  const upTo = Math.min(high, startOfBlock(after) + limit * BLOCKS_PER_ROW * PLACES_PER_BLOCK);
  const { last, rows, bytes } = await look(sql, transform, after, upTo, limit);
  if (bytes > MAX_INPUT_BYTES && rows > 1) {
    const fitting = Math.floor((rows * MAX_INPUT_BYTES) / bytes);
    const fewer = Math.max(1, Math.min(fitting, rows >> 1));
    return nextPart(sql, transform, after, high, fewer);
  }
  if (last === null || rows < limit) return { end: upTo, rows };
  const end = startOfBlock(last);
  if (end <= after) return { end: last, rows };
  const beyond = await look(sql, transform, end, last, limit);
  return { end, rows: rows - beyond.rows };
}

const startOfBlock = (place: Place) => place - (place % PLACES_PER_BLOCK);

function look(
  sql: Sql,
  { table, computation }: Transform,
  after: Place,
  upTo: Place,
  limit: number,
): Promise<{ last: Place | null; rows: number; bytes: number }> {
  const { sql: which, params } = rowsBetween(after, upTo);
  const size = computation ? `pg_column_size(${computation.input})` : '0';
  return one(
    sql,
    `SELECT (SELECT ${PLACE} FROM (SELECT max(r."ctid") AS "ctid") t) AS "last", count(*)::int AS "rows",
       coalesce(sum(r."bytes"), 0)::float8 AS "bytes"
     FROM (SELECT t."ctid", ${size} AS "bytes" FROM "${table}" t WHERE ${which(1)} LIMIT ${limit}) r`,
    params,
  );
}

/**
 * Sets a part of one row apart, with the reason. Is it another by now, or are they several, the
 * sweep tries them again. Where the database refuses even to say whether the row needs work, it does.
 */
async function quarantinePart(
  sql: Sql,
  transform: Transform,
  runId: string,
  after: Place,
  upTo: Place,
  reason: string,
): Promise<void> {
  const { sql: which, params } = rowsBetween(after, upTo);
  const find = async (condition: string) => {
    const { rows } = await sql.query<{ id: string }>(
      `SELECT t."id" FROM "${transform.table}" t WHERE ${which(1)} AND ${condition} LIMIT 2`,
      params,
    );
    return rows.map(({ id }) => id);
  };
  let ids: string[];
  try {
    await sql.query('SAVEPOINT look');
    ids = await find(needs(transform));
    await sql.query('RELEASE SAVEPOINT look');
  } catch (error) {
    if (!isRefusal(error)) throw error;
    await sql.query('ROLLBACK TO SAVEPOINT look');
    ids = await find('true');
  }
  if (ids[0] !== undefined && ids.length === 1) await quarantine(sql, runId, ids[0], reason);
}
