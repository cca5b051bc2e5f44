import type { RunStatus } from '../backfill/status.ts';

/** Milliseconds between two plain lines about a table, where there is no terminal. */
const PLAIN_EVERY_MS = 10_000;

/** Columns for a name, and of a bar at least and at most. */
const WIDTH = { name: 20, bar: { min: 8, max: 24 } };

/** One line about a run, of `columns` at most: bar, percentage, what it does, time left, rate. */
export function progressLine(run: RunStatus, columns: number): string {
  const rate = run.elapsedMs > 0 ? Math.round((1000 * run.passed) / run.elapsedMs) : 0;
  const name = run.table.padEnd(WIDTH.name);
  const percentage = `${(100 * run.fraction).toFixed(1).padStart(5)}%`;
  const facts = [
    run.status === 'running' ? PHASE[run.phase] : run.status.replaceAll('_', ' '),
    ...(run.etaMs === null ? [] : [`${duration(run.etaMs)} left`]),
    ...(run.quarantined > 0 ? [`${run.quarantined} in quarantine`] : []),
    `${rate.toLocaleString('en')}/s`,
    `${run.passed.toLocaleString('en')} rows`,
  ];
  // What holds it is all that matters then.
  if (run.reason !== null) return cut(`${name} ${percentage}  ${run.reason}`, columns);
  let text = facts[0] as string;
  const room = columns - name.length - 1 - WIDTH.bar.min - 1 - percentage.length - 2;
  for (const fact of facts.slice(1)) {
    if (text.length + 2 + fact.length <= room) text += `  ${fact}`;
  }
  const width = Math.min(WIDTH.bar.max, WIDTH.bar.min + Math.max(0, room - text.length));
  const filled = Math.round(run.fraction * width);
  const bar = '█'.repeat(filled) + '░'.repeat(width - filled);
  return cut(`${name} ${bar} ${percentage}  ${text}`, columns);
}

const cut = (line: string, columns: number) =>
  line.length <= columns ? line : `${line.slice(0, columns - 1)}…`;

const PHASE = {
  fill: 'filling in',
  check: 'checking',
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

/** Shows runs on standard error: bars that move on a terminal, now and then a line elsewhere. */
export function createProgress(stream: NodeJS.WriteStream = process.stderr) {
  let drawn = 0;
  const told = new Map<string, { at: number; key: string }>();
  return (runs: readonly RunStatus[]): void => {
    if (stream.isTTY) {
      // One column less: a line that fills the last one makes some terminals begin another.
      const lines = runs.map((run) => progressLine(run, Math.max(40, stream.columns) - 1));
      stream.write(
        `${drawn > 0 ? `\u001B[${drawn}A` : ''}${lines.map((line) => `\u001B[2K${line}\n`).join('')}`,
      );
      drawn = lines.length;
      return;
    }
    for (const run of runs) {
      const last = told.get(run.table);
      const key = `${run.status} ${run.phase} ${run.reason}`;
      const isDue =
        last && run.status === 'running' && performance.now() - last.at > PLAIN_EVERY_MS;
      if (last?.key === key && !isDue) continue;
      told.set(run.table, { at: performance.now(), key });
      stream.write(`${progressLine(run, Infinity).replace(/[█░]+ */, '')}\n`);
    }
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
