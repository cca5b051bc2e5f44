import type pg from 'pg';

import type { Phase } from './lanes.ts';
import type { RunOptions } from './step.ts';
import { TRANSFORMS } from './transforms/index.ts';
import { checkCost, estimate, of, rowsLeft } from './workLeft.ts';

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
  phase: Phase;
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
  /** Some of the rows in quarantine, five at most, and why they are. */
  refused: { id: string; reason: string }[];
  /** Whether it is running, and nobody has taken it up for five seconds. */
  isUnattended: boolean;
  /** Milliseconds from the start to the end, or to now; the time that it was paused does not count. */
  elapsedMs: number;
  /** 0..1 */
  fraction: number;
  /** Milliseconds that are left if all goes on as it went, throttling included; null if unknown. */
  etaMs: number | null;
}

/** How far the lanes of a phase are. */
export interface LaneTotals {
  phase: Phase;
  /** Places that they cover, and that they have passed. */
  places: number;
  placesPassed: number;
  rowsPassed: number;
  rowsChanged: number;
  /** Lanes that are not done. */
  open: number;
  busyMs: number;
  /** Of the last chunks, the latest of which count most. */
  recentRows: number;
  recentBusyMs: number;
  /** Of lanes that are open, or were, the sum of what of its time each is at work. */
  duty: number;
  /** The most that a lane is at work. */
  laneRate: number;
}

/** As PostgreSQL tells it. */
export type Run = Omit<
  RunStatus,
  'passed' | 'checked' | 'changed' | 'chunks' | 'revivals' | 'fraction' | 'etaMs'
> & { options: RunOptions; lanes: (LaneTotals & { chunks: number; revivals: number })[] };

/** When something was last done for the run \`r\`. */
export const MOVED_AT = `greatest(r."startedAt", (SELECT max(l."movedAt") FROM "BackfillLane" l WHERE l."runId" = r."id"))`;

const STATUS = `
SELECT r."tableName" AS "table", r."status", r."phase", r."totalRows" AS "rows", r."remaining", r."differing", r."reason", r."options",
  (SELECT count(*)::int FROM "BackfillQuarantine" q WHERE q."runId" = r."id") AS "quarantined",
  (SELECT coalesce(json_agg(json_build_object('id', q."rowId", 'reason', q."reason")), '[]') FROM (
    SELECT * FROM "BackfillQuarantine" q WHERE q."runId" = r."id" ORDER BY q."rowId" LIMIT 5) q) AS "refused",
  r."status" = 'running' AND NOT EXISTS (
    SELECT FROM "BackfillLane" l WHERE l."runId" = r."id" AND NOT l."isDone" AND (
      l."dueAt" > now() AT TIME ZONE 'utc' - interval '5 s' OR EXISTS ( -- or a chunk takes longer than its lease
        SELECT FROM pg_locks h WHERE h."locktype" = 'transactionid' AND h."transactionid" = l.xmax AND h."granted"))) AS "isUnattended",
  (extract(epoch FROM coalesce(r."finishedAt", CASE WHEN r."status" = 'paused' THEN ${MOVED_AT} END,
    now() AT TIME ZONE 'utc') - r."startedAt") * 1000)::float8 AS "elapsedMs",
  (SELECT coalesce(json_agg(lanes), '[]') FROM (
    SELECT l."phase", count(*) FILTER (WHERE NOT l."isDone") AS "open",
      sum(l."chunks") AS "chunks", sum(l."revivals") AS "revivals", sum(l."busyMs") AS "busyMs",
      sum(l."rowsPassed") AS "rowsPassed", sum(l."rowsChanged") AS "rowsChanged",
      sum(l."high" - l."low") AS "places", sum(CASE WHEN l."isDone" THEN l."high" ELSE l."cursor" END - l."low") AS "placesPassed",
      sum(l."recentRows") AS "recentRows", sum(l."recentBusyMs") AS "recentBusyMs",
      coalesce(sum(l."recentBusyMs" / (l."recentWallMs" + CASE WHEN r."reason" IS NULL THEN 0 -- or how long it is held
          ELSE 1000 * extract(epoch FROM now() AT TIME ZONE 'utc' - l."movedAt") END)) FILTER (WHERE NOT l."isDone" AND l."recentWallMs" > 0),
        sum(l."recentBusyMs" / l."recentWallMs") FILTER (WHERE l."recentWallMs" > 0), 0) AS "duty",
      coalesce(max(l."recentBusyMs" / l."recentWallMs") FILTER (WHERE l."recentWallMs" > 0), 0) AS "laneRate"
    FROM "BackfillLane" l WHERE l."runId" = r."id" GROUP BY l."phase") lanes) AS "lanes"
FROM (SELECT DISTINCT ON ("tableName") * FROM "BackfillRun" ORDER BY "tableName", "startedAt" DESC, "id" DESC) r
ORDER BY array_position($1::text[], r."tableName")`;

/** The latest run of each of the tables that has one. */
export async function readStatus(pool: pg.Pool, tables: readonly string[]): Promise<RunStatus[]> {
  const { rows } = await pool.query<Run>(STATUS, [tables]);
  const runs = rows.filter(({ table }) => TRANSFORMS.some(({ name }) => name === table));
  const times = estimate(runs);
  return runs
    .map((run, index) => {
      const { lanes, options: _, ...rest } = run;
      const total = (of: (lane: (typeof lanes)[number]) => number, ...phases: Phase[]) =>
        lanes
          .filter(({ phase }) => phases.length === 0 || phases.includes(phase))
          .reduce((sum, lane) => sum + of(lane), 0);
      return {
        ...rest,
        passed: total(({ rowsPassed }) => rowsPassed, 'fill', 'undo'),
        checked: run.phase === 'check' ? total(({ rowsPassed }) => rowsPassed, 'check') : 0,
        changed: total(({ rowsChanged }) => rowsChanged),
        chunks: total(({ chunks }) => chunks),
        revivals: total(({ revivals }) => revivals),
        fraction: fractionOf(run),
        etaMs: run.isUnattended ? null : (times[index] ?? null),
      };
    })
    .filter(({ table }) => tables.includes(table));
}

/** Of the whole work: to fill in every row, and then to check what was written. */
function fractionOf(run: Run): number {
  const { status, phase, rows } = run;
  if (status.startsWith('completed') || status === 'rolled_back') return 1;
  if (phase === 'settle') return 0.999;
  const fill = of(run, 'fill');
  const passed = of(run, phase)?.rowsPassed ?? 0;
  if (phase === 'undo') return rows === 0 ? 0 : Math.min(1, passed / rows);
  const filled = fill && fill.places > 0 ? fill.placesPassed / fill.places : 1;
  // What the rows so far did not need, the later ones will hardly need to have checked.
  const share = fill && fill.rowsPassed > 0 ? fill.rowsChanged / fill.rowsPassed : 1;
  const check = checkCost(run) * share;
  if (phase === 'fill' || phase === 'sweep') return filled / (1 + check);
  const toCheck = rowsLeft(run, 'check') + passed;
  const checked = toCheck === 0 ? 1 : passed / toCheck;
  return (1 + check * checked) / (1 + check);
}
