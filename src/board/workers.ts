import type { Sight } from './watch.ts';

/** A worker that has not reported for this many milliseconds is gone, or its database is. */
const SILENT_MS = 5000;

/**
 * Worker processes that report. The reports of a database that is away grow no older by themselves.
 *
 * @param now - of the clock of `reportsAt`
 */
export function countWorkers(
  { reports, reportsAt }: Pick<Sight, 'reports' | 'reportsAt'>,
  now = performance.now(),
): number {
  return reports.filter(({ ageMs }) => ageMs + now - reportsAt < SILENT_MS).length;
}
