import type pg from 'pg';

import { timesLeft } from './estimate.ts';
import type { Phase } from './lanes.ts';
import type { RunOptions } from './step.ts';
import { priorityOf } from './transform.ts';
import { TRANSFORMS, transformOf } from './transforms/index.ts';

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
  /** Milliseconds from the start to the end, or to now. */
  elapsedMs: number;
  /** 0..1 */
  fraction: number;
  /** Milliseconds that are left if all goes on as it went, throttling included; null if unknown. */
  etaMs: number | null;
}

/**
 * What it costs to check a row, compared with filling it in. Measured: 0.42 to 0.76 and, where what
 * JavaScript computes is computed again, 0.65 to 0.88.
 */
const checkCost = (run: Run) => (transformOf(run.table).computation ? 0.7 : 0.6);

/** What it costs to read the whole table, compared with filling it in: sweeping (measured: 0.01 to 0.11), and settling (0.01 to 0.02). */
const SWEEP_COST = 0.06;
const SETTLE_COST = 0.02;

/** How far the lanes of a phase are. */
interface LaneTotals {
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

type Run = Omit<
  RunStatus,
  'passed' | 'checked' | 'changed' | 'chunks' | 'revivals' | 'fraction' | 'etaMs'
> & { options: RunOptions; lanes: (LaneTotals & { chunks: number; revivals: number })[] };

const STATUS = `
SELECT r."tableName" AS "table", r."status", r."phase", r."totalRows" AS "rows", r."remaining", r."differing", r."reason", r."options",
  (SELECT count(*)::int FROM "BackfillQuarantine" q WHERE q."runId" = r."id") AS "quarantined",
  (extract(epoch FROM coalesce(r."finishedAt", now() AT TIME ZONE 'utc') - r."startedAt") * 1000)::float8 AS "elapsedMs",
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
        etaMs: times[index] ?? null,
      };
    })
    .filter(({ table }) => tables.includes(table));
}

const of = ({ lanes }: Run, wanted: Phase) => lanes.find(({ phase }) => phase === wanted);

/** Rows that the lanes of a phase have still to pass, or to check. */
function rowsLeft(run: Run, phase: 'fill' | 'check' | 'undo'): number {
  const lanes = of(run, phase);
  if (phase === 'fill') {
    if (!lanes || lanes.rowsPassed === 0) return run.rows;
    return (lanes.places - lanes.placesPassed) * (lanes.rowsPassed / lanes.placesPassed);
  }
  // The log may hold earlier runs of the table, too.
  const all = phase === 'check' ? (of(run, 'fill')?.rowsChanged ?? 0) : run.rows;
  return Math.max(0, all - (lanes?.rowsPassed ?? 0));
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

/** Milliseconds of work that a run has left, by the pace of its last chunks; undefined before the first. */
function busyMsLeft(run: Run): number | undefined {
  const pace = (phase: Phase) => {
    const { recentRows = 0, recentBusyMs = 0 } = of(run, phase) ?? {};
    return recentRows > 0 ? recentBusyMs / recentRows : undefined;
  };
  if (run.phase === 'undo') return scaled(rowsLeft(run, 'undo'), pace('undo'));
  const fill = of(run, 'fill');
  const fillLeft = run.phase === 'fill' ? scaled(rowsLeft(run, 'fill'), pace('fill')) : 0;
  if (!fill || fillLeft === undefined) return undefined;
  const fillMs = fill.busyMs + fillLeft;
  const end = SETTLE_COST * fillMs;
  if (run.phase === 'fill' || run.phase === 'sweep') {
    const share = fill.rowsPassed > 0 ? fill.rowsChanged / fill.rowsPassed : 1;
    const sweepLeft = Math.max(0, SWEEP_COST * fillMs - (of(run, 'sweep')?.busyMs ?? 0));
    return fillLeft + sweepLeft + checkCost(run) * share * fillMs + end;
  }
  if (run.phase !== 'check') return end;
  // The first chunks, which are small, say less than what it took to fill in.
  const expected = { rows: fill.rowsChanged / 10, ms: (checkCost(run) * fill.busyMs) / 10 };
  const { recentRows = 0, recentBusyMs = 0 } = of(run, 'check') ?? {};
  const checkPace = (expected.ms + recentBusyMs) / Math.max(1, expected.rows + recentRows);
  return rowsLeft(run, 'check') * checkPace + end;
}

const scaled = (rows: number, pace: number | undefined) =>
  rows === 0 ? 0 : pace === undefined ? undefined : rows * pace;

/** Milliseconds until each run ends, if all goes on as it does now; null where that is unknown. */
function estimate(runs: readonly Run[]): (number | null)[] {
  const atWork = runs.filter(({ status }) => status === 'running');
  // A phase that has just begun has little to go by: the one before it had the same share.
  const recent = (run: Run) => {
    const phases = [run.phase, ...EARLIER].flatMap((phase) => of(run, phase) ?? []);
    return phases.find(({ recentBusyMs }) => recentBusyMs > TELLING_MS) ?? phases.at(-1);
  };
  const slots = atWork.reduce((sum, run) => sum + (recent(run)?.duty ?? 0), 0);
  const laneRate = Math.min(1, Math.max(0, ...atWork.map((run) => recent(run)?.laneRate ?? 0)));
  const left = atWork.map(busyMsLeft);
  if (slots === 0 || left.includes(undefined)) return runs.map(() => null);
  const times = timesLeft(
    atWork.map((run, index) => ({
      busyMs: left[index] ?? 0,
      lanes: Math.min(run.options.lanes, transformOf(run.table).maxLanes ?? Infinity),
      priority: priorityOf(transformOf(run.table)),
    })),
    slots,
    laneRate,
  );
  return runs.map((run) => (run.status === 'running' ? finite(times[atWork.indexOf(run)]) : null));
}

const finite = (value: number | undefined) =>
  value !== undefined && Number.isFinite(value) ? value : null;

const EARLIER: readonly Phase[] = ['check', 'fill'];

/** Milliseconds of work that tell which part of the workers a run has. */
const TELLING_MS = 1000;
