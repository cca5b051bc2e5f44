import { setInterval as every } from 'node:timers';

import type { Logger } from '../logger.ts';
import type { Workers } from './runtime.ts';

/**
 * Logs a line for each queue with what was done since the start, once a minute, unless nothing was
 * since the last line.
 *
 * @param everyMs - milliseconds between two lines; default 60,000
 * @returns what ends it
 */
export function logTotals(
  { stats }: Pick<Workers, 'stats'>,
  log: Logger,
  everyMs = 60_000,
): () => void {
  const told = new Map<string, string>();
  const timer = every(() => {
    for (const [queue, totals] of Object.entries(stats())) {
      const line = JSON.stringify(totals);
      // Nobody wants to hear of idleness.
      if (totals.statements > 0 && told.get(queue) !== line)
        log.info({ queue, ...totals }, 'totals');
      told.set(queue, line);
    }
  }, everyMs);
  return () => clearInterval(timer);
}
