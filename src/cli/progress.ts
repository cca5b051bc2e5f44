import type { RunStatus } from '../backfill/status.ts';

const BAR_WIDTH = 24;

/** Milliseconds between two plain lines about a table, where there is no terminal. */
const PLAIN_EVERY_MS = 10_000;

/** One line about a run: bar, percentage, rate and time left. */
export function progressLine(run: RunStatus): string {
  const filled = Math.round(run.fraction * BAR_WIDTH);
  const bar = '█'.repeat(filled) + '░'.repeat(BAR_WIDTH - filled);
  const rate = run.elapsedMs > 0 ? Math.round((1000 * run.passed) / run.elapsedMs) : 0;
  const parts = [
    `${bar} ${(100 * run.fraction).toFixed(1).padStart(5)}%`,
    `${run.passed.toLocaleString('en')} rows`,
    `${rate.toLocaleString('en')}/s`,
    run.status === 'running' ? PHASE[run.phase] : run.status,
    ...(run.etaMs === null ? [] : [`${duration(run.etaMs)} left`]),
    ...(run.quarantined > 0 ? [`${run.quarantined} in quarantine`] : []),
    ...(run.reason === null ? [] : [run.reason]),
  ];
  return `${run.table.padEnd(20)} ${parts.join('  ')}`;
}

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
      const lines = runs.map((run) => progressLine(run).slice(0, Math.max(20, stream.columns - 1)));
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
      stream.write(`${progressLine(run).replace(/[█░]+ */, '')}\n`);
    }
  };
}
