import type pg from 'pg';

import { inTransaction, one } from './database.ts';
import { fillIds } from './fill.ts';
import { countStale } from './phases.ts';
import { countRemainingSql, needs, type Transform } from './transform.ts';

/** What a table holds, compared with what it should hold. */
export interface Verification {
  table: string;
  /** Rows that lack a value which their other columns give. */
  remaining: number;
  /** Rows in which a value that a backfill wrote is not what it should be. */
  differing: number;
  /** Rows that the last run set apart. */
  quarantined: number;
}

/** A statement that looks at the whole table may take an hour. */
const WHOLE_TABLE = { statementTimeoutMs: 3_600_000 };

/**
 * Works out anew, in SQL, what every row should hold, and counts the rows that differ. What the
 * application has set itself is as the application wants it; rows that it has written since the
 * backfill are its own too. Nothing is changed.
 */
export async function verify(pool: pg.Pool, transform: Transform): Promise<Verification> {
  const run = await pool.query<{ id: string; quarantined: number }>(
    `SELECT r."id", (SELECT count(*)::int FROM "BackfillQuarantine" q WHERE q."runId" = r."id") AS "quarantined"
     FROM "BackfillRun" r WHERE r."tableName" = $1 ORDER BY r."startedAt" DESC, r."id" DESC LIMIT 1`,
    [transform.name],
  );
  const { id = NO_RUN, quarantined = 0 } = run.rows[0] ?? {};
  const { remaining } = await inTransaction(
    pool,
    (sql) => one<{ remaining: number }>(sql, countRemainingSql(transform), [id]),
    WHOLE_TABLE,
  );
  const log = await pool.query<{ id: number }>(
    `SELECT "id" FROM "BackfillUndo" WHERE "tableName" = $1 ORDER BY "id"`,
    [transform.name],
  );
  let differing = 0;
  for (const entry of log.rows) differing += await countStale(pool, transform, entry.id);
  return { table: transform.name, remaining, differing, quarantined };
}

const NO_RUN = '00000000-0000-0000-0000-000000000000';

/** What a run would do, by a sample that was really filled in, and rolled back. */
export interface DryRun {
  table: string;
  rows: number;
  /** Rows of the sample that need work, of all of its rows. */
  sampled: number;
  needing: number;
  rowsPerSecond: number;
  /** Milliseconds for the whole table in one lane. */
  estimateMs: number;
  /** Rows of the sample that the database refused, and why. */
  refused: { id: string; reason: string }[];
  examples: { before: Record<string, unknown>; after: Record<string, unknown> }[];
}

const SAMPLE_ROWS = 2000;
const EXAMPLES = 3;

/** Fills in a sample of the table, looks at it and rolls all of it back. */
export function dryRun(pool: pg.Pool, transform: Transform): Promise<DryRun> {
  const { table, columns, name } = transform;
  return inTransaction(
    pool,
    async (sql) => {
      const { rows } = await one<{ rows: number }>(
        sql,
        `SELECT count(*)::int AS "rows" FROM "${table}"`,
      );
      const percent = Math.min(100, rows === 0 ? 100 : (200 * SAMPLE_ROWS) / rows);
      const sample = await sql.query<{ id: string; needs: boolean }>(
        `SELECT t."id", ${needs(transform)} AS "needs" FROM "${table}" t TABLESAMPLE SYSTEM (${percent}) LIMIT ${SAMPLE_ROWS}`,
      );
      const ids = sample.rows.filter((row) => row.needs).map(({ id }) => id);
      const look = () =>
        sql.query<{ id: string }>(
          `SELECT t."id", ${columns.map((column) => `t."${column.name}"`).join(', ')} FROM "${table}" t
           WHERE t."id" = ANY ($1::text[]) ORDER BY t."id"`,
          [ids.slice(0, EXAMPLES)],
        );
      // A log entry needs a run to belong to; it goes the way of everything here.
      const run = await one<{ id: string }>(
        sql,
        `INSERT INTO "BackfillRun" ("id", "tableName", "status", "totalRows", "options")
         VALUES (gen_random_uuid(), $1, 'cancelled', 0, '{}') RETURNING "id"`,
        [name],
      );
      const before = await look();
      const startedAt = performance.now();
      await fillIds(sql, transform, run.id, ids);
      const tookMs = performance.now() - startedAt;
      const refused = await sql.query<{ id: string; reason: string }>(
        `SELECT "rowId" AS "id", "reason" FROM "BackfillQuarantine" WHERE "runId" = $1 ORDER BY "rowId"`,
        [run.id],
      );
      const after = await look();
      const sampled = sample.rows.length;
      const rowsPerSecond = tookMs === 0 ? 0 : Math.round((1000 * ids.length) / tookMs);
      return {
        table: name,
        rows,
        sampled,
        needing: ids.length,
        rowsPerSecond,
        estimateMs: sampled === 0 ? 0 : Math.round((tookMs * rows) / sampled),
        refused: refused.rows,
        examples: before.rows.flatMap((row, index) => {
          const filled = after.rows[index];
          return filled ? [{ before: row, after: filled }] : [];
        }),
      };
    },
    { dryRun: true, ...WHOLE_TABLE },
  );
}
