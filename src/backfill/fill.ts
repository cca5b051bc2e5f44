import { classifyFault, serverMessage } from '../database/faults.ts';
import { one, type Sql } from './database.ts';
import { fillSql, inputSql, keysBetween, type Rows, type Transform } from './transform.ts';

/** Fills in rows within the caller's transaction; returns how many were changed. */
export async function fill(
  sql: Sql,
  transform: Transform,
  runId: string,
  rows: Rows,
  wait: 'SKIP LOCKED' | 'NOWAIT' = 'SKIP LOCKED',
): Promise<number> {
  const computed: Record<string, string> = {};
  const { computation } = transform;
  if (computation) {
    const inputs = await sql.query<{ id: string; input: string }>(
      inputSql(transform, computation, rows, wait),
      rows.params,
    );
    for (const { id, input } of inputs.rows) computed[id] = computation.compute(input);
  }
  const params = [JSON.stringify(computed), runId, ...rows.params];
  return (await one<{ changed: number }>(sql, fillSql(transform, rows, wait), params)).changed;
}

export interface Progress {
  /** Last key that was passed. */
  cursor: string | null;
  passed: number;
  changed: number;
  quarantined: number;
  /** Whether there are no more keys. */
  isDone: boolean;
}

/** Milliseconds after which a chunk that has to be halved commits what it has. */
const HALVING_MS = 2000;

/**
 * Passes the next `limit` keys after the cursor. A part that the database refuses for its data is
 * rolled back and halved, down to the row that is at fault, which goes into quarantine; the parts
 * before it stand. Parts grow again behind it, so a bad row costs about twice the chunk's work.
 */
export async function fillChunk(
  sql: Sql,
  transform: Transform,
  runId: string,
  keys: { cursor: string | null; highKey: string | null },
  limit: number,
): Promise<Progress> {
  const progress: Progress = {
    cursor: keys.cursor,
    passed: 0,
    changed: 0,
    quarantined: 0,
    isDone: false,
  };
  const startedAt = performance.now();
  let size = limit;
  let refusals = 0;
  while (progress.passed < limit && !progress.isDone) {
    const part = await nextKeys(sql, transform, progress.cursor, keys.highKey, size);
    if (part.rows > 0) {
      const rows = keysBetween(progress.cursor, part.last);
      try {
        await sql.query('SAVEPOINT part');
        progress.changed += await fill(sql, transform, runId, rows);
        await sql.query('RELEASE SAVEPOINT part');
        refusals = 0;
      } catch (error) {
        if (classifyFault(error) !== 'data') throw error;
        await sql.query('ROLLBACK TO SAVEPOINT part');
        // A row alone is tried twice: a unique key that another transaction filled in at the same
        // moment is seen, and respected, by the statement that comes after it.
        if (part.rows > 1 || refusals++ < 1) {
          size = Math.ceil(part.rows / 2);
          continue;
        }
        refusals = 0;
        progress.quarantined += await quarantine(
          sql,
          runId,
          part.last as string,
          serverMessage(error),
        );
      }
      progress.cursor = part.last;
      progress.passed += part.rows;
    }
    progress.isDone = part.rows < size;
    if (size < limit && performance.now() - startedAt > HALVING_MS) break;
    size = Math.min(size * 2, limit - progress.passed);
  }
  return progress;
}

/** Where the next `limit` keys end. It reads the index alone, however wide the rows are. */
async function nextKeys(
  sql: Sql,
  { table }: Transform,
  cursor: string | null,
  highKey: string | null,
  limit: number,
): Promise<{ last: string | null; rows: number }> {
  const { sql: which, params } = keysBetween(cursor, highKey);
  return one(
    sql,
    `SELECT max("id") AS "last", count(*)::int AS "rows"
     FROM (SELECT t."id" FROM "${table}" t WHERE ${which(1)} ORDER BY t."id" LIMIT ${limit}) keys`,
    params,
  );
}

/** Sets a row apart, with the reason; returns 1. */
export async function quarantine(
  sql: Sql,
  runId: string,
  rowId: string,
  reason: string,
): Promise<number> {
  await sql.query(
    `INSERT INTO "BackfillQuarantine" ("runId", "rowId", "reason", "createdAt")
     VALUES ($1, $2, $3, now() AT TIME ZONE 'utc') ON CONFLICT DO NOTHING`,
    [runId, rowId, reason],
  );
  return 1;
}
