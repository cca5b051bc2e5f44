import { setTimeout as sleep } from 'node:timers/promises';

import type pg from 'pg';

import { readStatus, type RunStatus } from '../backfill/status.ts';
import { startBackfillWorker } from '../backfill/worker.ts';
import { serverMessage } from '../database/faults.ts';
import { InterruptedError } from '../errors.ts';
import { createLogger } from '../logger.ts';
import type { Reworking } from './backfill.ts';
import { outcome } from './backfillReport.ts';
import type { Environment } from './environment.ts';
import { createProgress } from './progress.ts';

/** Milliseconds between two looks at the runs that are being watched. */
const LOOK_EVERY_MS = 250;

/** Works on runs until none of them is under way; 0 when all came to the end that they are to. */
export async function workAndWatch(
  { config, databaseUrl, queue, closer, remainingMs, say, result, stopping }: Environment,
  pool: pg.Pool,
  tables: readonly string[],
  command: Reworking | 'start',
): Promise<0 | 1> {
  const progress = createProgress();
  // The bars say what would be said at level info.
  const level = process.stderr.isTTY && config.ANNALS_LOG_LEVEL === 'info' ? 'warn' : undefined;
  const log = createLogger({ ...config, ...(level && { ANNALS_LOG_LEVEL: level }) }, () =>
    progress.clear(),
  );
  const worker = await startBackfillWorker({ databaseUrl, queue, log });
  closer.add('backfill', () => worker.stop(remainingMs()));
  let seen: RunStatus[] = [];
  let isAway = false;
  // Who paused a run before is perhaps not there to resume it; who does so now, watches.
  let heldBefore: ReadonlySet<string> | undefined;
  while (!stopping.aborted) {
    try {
      seen = await readStatus(pool, tables);
      isAway = false;
    } catch (error) {
      if (!isAway) log.warn({ reason: serverMessage(error) }, 'waiting for PostgreSQL');
      isAway = true;
    }
    progress.show(seen);
    const held = seen.filter(({ status }) => status === 'paused').map(({ table }) => table);
    if (seen.length > 0) heldBefore ??= new Set(held);
    const isWaitedFor = ({ status, table }: RunStatus) =>
      status === 'running' || (status === 'paused' && !heldBefore?.has(table));
    if (seen.length > 0 && !seen.some(isWaitedFor)) break;
    await sleep(LOOK_EVERY_MS, undefined, { signal: stopping }).catch(() => {});
  }
  if (stopping.aborted) {
    if (!(stopping.reason instanceof InterruptedError)) throw stopping.reason;
    const goOn = `npx annals backfill ${command === 'retry' ? 'start' : command}`;
    say(`Stopped working here; what is done stays. Go on with:\n  ${goOn}`);
    say('(Where an `annals worker` runs, it goes on by itself.)');
    return 1;
  }
  result(seen, outcome(seen));
  const goal = command === 'rollback' ? 'rolled_back' : 'completed';
  return seen.every(({ status }) => status === goal) ? 0 : 1;
}
