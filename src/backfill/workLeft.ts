import { timesLeft } from './estimate.ts';
import type { Phase } from './lanes.ts';
import type { Run } from './status.ts';
import { priorityOf } from './transform.ts';
import { transformOf } from './transforms/index.ts';

// How much work runs have left, and how long that will take.

/**
 * What it costs to check a row, compared with filling it in. Measured: 0.42 to 0.76 and, where what
 * JavaScript computes is computed again, 0.65 to 0.88.
 */
export const checkCost = (run: Run) => (transformOf(run.table).computation ? 0.7 : 0.6);

/**
 * The same in a run whose lanes rest after each chunk, however little that had to do: sweeping and
 * checking have as many chunks as filling in had.
 */
function withRests({ lanes, options }: Run, cost: number): number {
  const fill = lanes.find(({ phase }) => phase === 'fill');
  if (!options.restMs || !fill || fill.chunks === 0) return cost;
  const chunkMs = fill.busyMs / fill.chunks;
  return (cost * chunkMs + options.restMs) / (chunkMs + options.restMs);
}

/** What it costs to read the whole table, compared with filling it in: sweeping (measured: 0.01 to 0.11), and settling (0.01 to 0.02). */
const SWEEP_COST = 0.06;
const SETTLE_COST = 0.02;

export const of = ({ lanes }: Run, wanted: Phase) => lanes.find(({ phase }) => phase === wanted);

/** Rows that the lanes of a phase have still to pass, or to check. */
export function rowsLeft(run: Run, phase: 'fill' | 'check' | 'undo'): number {
  const lanes = of(run, phase);
  if (phase === 'fill') {
    if (!lanes || lanes.rowsPassed === 0) return run.rows;
    return (lanes.places - lanes.placesPassed) * (lanes.rowsPassed / lanes.placesPassed);
  }
  // The log may hold earlier runs of the table, too.
  const all = phase === 'check' ? (of(run, 'fill')?.rowsChanged ?? 0) : run.rows;
  return Math.max(0, all - (lanes?.rowsPassed ?? 0));
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
    const check = withRests(run, checkCost(run)) * share * fillMs;
    return fillLeft + sweepLeft(run, fillMs) + check + end;
  }
  if (run.phase !== 'check') return end;
  if (run.options.restMs > 0) {
    const part = rowsLeft(run, 'check') / Math.max(1, fill.rowsChanged);
    return withRests(run, checkCost(run)) * Math.min(1, part) * fill.busyMs + end;
  }
  // The first chunks, which are small, say less than what it took to fill in.
  const expected = { rows: fill.rowsChanged / 10, ms: (checkCost(run) * fill.busyMs) / 10 };
  const { recentRows = 0, recentBusyMs = 0 } = of(run, 'check') ?? {};
  const checkPace = (expected.ms + recentBusyMs) / Math.max(1, expected.rows + recentRows);
  return rowsLeft(run, 'check') * checkPace + end;
}

function sweepLeft(run: Run, fillMs: number): number {
  const sweep = of(run, 'sweep');
  if (!run.options.restMs) return Math.max(0, SWEEP_COST * fillMs - (sweep?.busyMs ?? 0));
  const passed = sweep && sweep.places > 0 ? sweep.placesPassed / sweep.places : 0;
  return withRests(run, SWEEP_COST) * fillMs * (1 - passed);
}

const scaled = (rows: number, pace: number | undefined) =>
  rows === 0 ? 0 : pace === undefined ? undefined : rows * pace;

/** Milliseconds until each run ends, if all goes on as it does now; null where that is unknown. */
export function estimate(runs: readonly Run[]): (number | null)[] {
  const atWork = runs.filter(({ status }) => status === 'running');
  // A phase that has just begun has little to go by: the one before it had the same share.
  const recent = (run: Run) => {
    // Where lanes rest, the work of all phases is told in terms of the first.
    if (run.options.restMs > 0 && run.phase !== 'undo') return of(run, 'fill');
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
