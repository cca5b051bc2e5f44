import type pg from 'pg';

/** Where the latest backfill of a table stands. */
export interface RunStatus {
  table: string;
  status:
    | 'running'
    | 'paused'
    | 'cancelled'
    | 'completed'
    | 'completed_with_errors'
    | 'failed'
    | 'rolled_back';
  phase: 'fill' | 'check' | 'settle' | 'undo';
  /** Rows of the table at the start; of a rollback, rows that backfills wrote to. */
  rows: number;
  /** Rows that were looked at, by phase; more than `rows` when rows came in meanwhile. */
  passed: number;
  checked: number;
  changed: number;
  quarantined: number;
  chunks: number;
  /** Chunks that another worker took over, and that may have been done in part before. */
  revivals: number;
  remaining: number | null;
  differing: number | null;
  reason: string | null;
  /** Milliseconds from the start to the end, or to now. */
  elapsedMs: number;
  /** 0..1 */
  fraction: number;
  /** Milliseconds that are left if all goes on as it went, throttling included; null if unknown. */
  etaMs: number | null;
}

/** What it costs to check a row, compared with filling it in (measured: 0.35 to 0.7). */
const CHECK_COST = 0.5;

const STATUS = `
SELECT r."tableName" AS "table", r."status", r."phase", r."totalRows" AS "rows", r."remaining", r."differing", r."reason",
  coalesce(sum(l."rowsPassed") FILTER (WHERE l."phase" IN ('fill', 'undo')), 0)::int AS "passed",
  coalesce(sum(l."rowsPassed") FILTER (WHERE l."phase" = r."phase" AND l."phase" NOT IN ('fill', 'undo')), 0)::int AS "checked",
  coalesce(sum(l."rowsChanged"), 0)::int AS "changed",
  coalesce(sum(l."chunks"), 0)::int AS "chunks", coalesce(sum(l."revivals"), 0)::int AS "revivals",
  (SELECT count(*)::int FROM "BackfillQuarantine" q WHERE q."runId" = r."id") AS "quarantined",
  (SELECT coalesce(sum(f."rowsChanged"), 0)::int FROM "BackfillLane" f WHERE f."runId" = r."id" AND f."phase" = 'fill') AS "logged",
  (extract(epoch FROM coalesce(r."finishedAt", now() AT TIME ZONE 'utc') - r."startedAt") * 1000)::float8 AS "elapsedMs"
FROM (SELECT DISTINCT ON ("tableName") * FROM "BackfillRun" ORDER BY "tableName", "startedAt" DESC, "id" DESC) r
LEFT JOIN "BackfillLane" l ON l."runId" = r."id"
GROUP BY r."id", r."tableName", r."status", r."phase", r."totalRows", r."remaining", r."differing", r."reason", r."finishedAt", r."startedAt"
ORDER BY array_position($1::text[], r."tableName")`;

/** The latest run of each of the tables that has one. */
export async function readStatus(pool: pg.Pool, tables: readonly string[]): Promise<RunStatus[]> {
  const { rows } = await pool.query<Omit<RunStatus, 'fraction' | 'etaMs'> & { logged: number }>(
    STATUS,
    [tables],
  );
  return rows
    .filter(({ table }) => tables.includes(table))
    .map(({ logged, ...run }) => {
      const fraction = fractionOf(run, logged);
      const isUseful = run.status === 'running' && fraction > 0;
      const etaMs = isUseful ? (run.elapsedMs * (1 - fraction)) / fraction : null;
      return { ...run, fraction, etaMs };
    });
}

/** Of the whole work: to fill in every row, then to check what was written. */
function fractionOf(
  { status, phase, rows, passed, checked }: Omit<RunStatus, 'fraction' | 'etaMs'>,
  logged: number,
): number {
  if (status.startsWith('completed') || status === 'rolled_back') return 1;
  if (phase === 'undo') return rows === 0 ? 0 : Math.min(1, passed / rows);
  if (phase === 'settle') return 0.999;
  const filled = rows === 0 ? 1 : Math.min(1, passed / rows);
  if (phase === 'fill') {
    // What the rows so far did not need, the later ones will hardly need to have checked.
    const share = passed === 0 ? 1 : logged / passed;
    return filled / (1 + CHECK_COST * share);
  }
  // The log may hold earlier runs of the table, too.
  const toCheck = CHECK_COST * Math.max(logged, checked);
  return rows + toCheck === 0 ? 1 : (rows + CHECK_COST * checked) / (rows + toCheck);
}
