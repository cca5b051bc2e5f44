import type { RunStatus } from '../backfill/status.ts';

/** Milliseconds between two plain lines about a table, where there is no terminal. */
const PLAIN_EVERY_MS = 10_000;

const NAME_WIDTH = 20;

/** A bar's columns: those that nothing else is likely to need, in these bounds. */
const BAR = { min: 8, max: 24, others: 70 };

/** One line about a run, of `columns` at most: bar, percentage, what it does, time left, rate. */
export function progressLine(run: RunStatus, columns: number): string {
  // What a chunk moves within its lane, or what came in meanwhile, may be passed twice.
  const passed = Math.min(run.passed, run.rows);
  const rate = run.elapsedMs > 0 ? Math.round((1000 * passed) / run.elapsedMs) : 0;
  const name = run.table.padEnd(NAME_WIDTH);
  const percentage = `${(100 * run.fraction).toFixed(1).padStart(5)}%`;
  // What holds it is all that matters then.
  if (run.reason !== null) return cut(`${name} ${percentage}  ${run.reason}`, columns);
  const width = Math.max(BAR.min, Math.min(BAR.max, columns - BAR.others));
  const filled = Math.round(run.fraction * width);
  const facts = [
    run.status === 'running' ? PHASE[run.phase] : run.status.replaceAll('_', ' '),
    ...(run.etaMs === null ? [] : [`${duration(run.etaMs)} left`]),
    ...(run.isUnattended ? ['nobody is working on it'] : []),
    ...(run.quarantined > 0 ? [`${run.quarantined} in quarantine`] : []),
    `${rate.toLocaleString('en')}/s`,
    `${passed.toLocaleString('en')} rows`,
  ];
  let line = `${name} ${'█'.repeat(filled)}${'░'.repeat(width - filled)} ${percentage}`;
  for (const fact of facts) if (line.length + 2 + fact.length <= columns) line += `  ${fact}`;
  return cut(line, columns);
}

const cut = (line: string, columns: number) =>
  line.length <= columns ? line : `${line.slice(0, columns - 1)}…`;

const PHASE = {
  fill: 'filling in',
  check: 'checking',
  sweep: 'sweeping up',
  settle: 'settling',
  undo: 'rolling back',
} as const;

/** @example duration(90_500) // '1m 31s' */
export function duration(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${seconds % 60}s`;
  return `${Math.floor(seconds / 3600)}h ${Math.floor((seconds % 3600) / 60)}m`;
}

export interface Progress {
  show(runs: readonly RunStatus[]): void;
  /** Takes the bars away, so that something else may be written; `show` draws them again. */
  clear(): void;
}

/** Shows runs on standard error: bars that move on a terminal, now and then a line elsewhere. */
export function createProgress(stream: NodeJS.WriteStream = process.stderr): Progress {
  return stream.isTTY ? bars(stream) : plainLines(stream);
}

function bars(stream: NodeJS.WriteStream): Progress {
  let drawn = 0;
  const clear = () => {
    if (drawn > 0) stream.write(`\u001B[${drawn}A\u001B[J`);
    drawn = 0;
  };
  return {
    clear,
    show: (runs) => {
      clear();
      // One column less: a line that fills the last one makes some terminals begin another.
      for (const run of runs) stream.write(`${progressLine(run, stream.columns - 1)}\n`);
      drawn = runs.length;
    },
  };
}

function plainLines(stream: NodeJS.WriteStream): Progress {
  const told = new Map<string, { at: number; key: string }>();
  return {
    clear: () => {},
    show: (runs) => {
      for (const run of runs) {
        const last = told.get(run.table);
        const key = `${run.status} ${run.phase} ${run.reason}`;
        const isDue =
          last && run.status === 'running' && performance.now() - last.at > PLAIN_EVERY_MS;
        if (last?.key === key && !isDue) continue;
        told.set(run.table, { at: performance.now(), key });
        stream.write(`${progressLine(run, Infinity).replace(/[█░]+ */, '')}\n`);
      }
    },
  };
}

/** Says on a terminal what takes its time, and for how long it has, until the work is over. */
export async function whileWaiting<T>(
  what: string,
  work: () => Promise<T>,
  stream: NodeJS.WriteStream = process.stderr,
): Promise<T> {
  if (!stream.isTTY) return work();
  const startedAt = performance.now();
  const clear = '\r\u001B[2K';
  const timer = setInterval(() => {
    stream.write(`${clear}${what}: ${duration(performance.now() - startedAt)}`);
  }, 1000);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    if (performance.now() - startedAt > 900) stream.write(clear);
  }
}
