import { classifyFault, serverMessage, sqlState } from '../database/faults.ts';
import type { Sql } from './database.ts';

/** A row that is damaged on disk. */
const DATA_CORRUPTED = 'XX001';

/** Whether a row is at fault: what the server answers for it does not change by waiting. */
export const isRefusal = (error: unknown): boolean =>
  classifyFault(error) === 'data' || sqlState(error) === DATA_CORRUPTED;

const UNIQUE_VIOLATION = '23505';

/**
 * Works on rows within the caller's transaction. What the database refuses is rolled back and
 * halved, down to the row that is at fault, which goes into quarantine; the rest stands. A row alone
 * is tried twice where a unique key is taken: one that another transaction filled in at the same
 * moment is seen, and respected, by the statement that comes after it.
 *
 * @returns rows that were changed
 */
export async function byParts(
  sql: Sql,
  runId: string,
  ids: readonly string[],
  work: (ids: readonly string[]) => Promise<number>,
  mayRepeat = true,
): Promise<number> {
  const [first] = ids;
  if (first === undefined) return 0;
  try {
    await sql.query('SAVEPOINT part');
    const changed = await work(ids);
    await sql.query('RELEASE SAVEPOINT part');
    return changed;
  } catch (error) {
    if (!isRefusal(error)) throw error;
    await sql.query('ROLLBACK TO SAVEPOINT part');
    if (ids.length > 1) {
      const middle = ids.length >> 1;
      return (
        (await byParts(sql, runId, ids.slice(0, middle), work)) +
        (await byParts(sql, runId, ids.slice(middle), work))
      );
    }
    if (mayRepeat && sqlState(error) === UNIQUE_VIOLATION) {
      return byParts(sql, runId, ids, work, false);
    }
    await quarantine(sql, runId, first, serverMessage(error));
    return 0;
  }
}

/** Sets a row apart, with the reason. */
export async function quarantine(
  sql: Sql,
  runId: string,
  rowId: string,
  reason: string,
): Promise<void> {
  await sql.query(
    `INSERT INTO "BackfillQuarantine" ("runId", "rowId", "reason", "createdAt")
     VALUES ($1, $2, $3, now() AT TIME ZONE 'utc') ON CONFLICT DO NOTHING`,
    [runId, rowId, reason],
  );
}
