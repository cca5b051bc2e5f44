import { startBackfillWorker } from '../../backfill/worker.ts';
import { InterruptedError } from '../../errors.ts';
import { nameWorker, startReporter } from '../../metrics/reports.ts';
import { createWorkerMetrics } from '../../metrics/workerMetrics.ts';
import { EVENT_KINDS } from '../../queues/catalogue.ts';
import { startSchedules } from '../../schedules/runner.ts';
import { startWorkers } from '../../workers/runtime.ts';
import { logTotals } from '../../workers/totals.ts';
import { inEnvironment, type Environment } from '../environment.ts';
import { checkRedisSafety } from '../reach.ts';
import { ensureSchema } from '../schema.ts';
import { untilAborted } from '../stopped.ts';
import { table } from '../table.ts';

export async function work(options: { json?: boolean }): Promise<void> {
  await inEnvironment({ ...options, needs: 'all', waits: true }, async (environment) => {
    await prepareWork(environment);
    const finish = await startWork(environment);
    environment.say(
      `Writing ${EVENT_KINDS.join(', ')}, and whatever backfills are running; Ctrl-C stops`,
    );
    return finish();
  });
}

/** Makes sure, before anything is started, that queues and tables are fit to be worked on. */
export async function prepareWork(environment: Environment): Promise<void> {
  const { log, queue } = environment;
  if (queue.kind === 'redis') await checkRedisSafety(queue.url, log);
  await ensureSchema(environment);
}

/**
 * Starts all that works on queues, and returns what waits for the stop, brings it about and prints
 * the totals.
 */
export async function startWork(environment: Environment): Promise<() => Promise<0 | 1>> {
  const { closer, config, databaseUrl, log, remainingMs, result, stopping } = environment;
  const worker = nameWorker();
  const { hooks, snapshot } = createWorkerMetrics(worker);
  const reporter = startReporter({ databaseUrl, worker, snapshot, log });
  closer.add('report', () => reporter.stop());
  const workers = await startWorkers({ ...environment, hooks, signal: stopping });
  closer.add('workers', () => workers.stop(remainingMs()));
  const backfill = await startBackfillWorker({
    ...environment,
    jobLockMs: config.ANNALS_JOB_LOCK_MS,
  });
  closer.add('backfill', () => backfill.stop(remainingMs()));
  const schedules = await startSchedules({ ...environment, config });
  closer.add('schedules', () => schedules.stop(remainingMs()));

  return async () => {
    const endTotals = logTotals(workers, log);
    await untilAborted(stopping);
    endTotals();

    await Promise.all([workers, backfill, schedules].map((running) => running.stop(remainingMs())));
    const stats = workers.stats();
    result(
      { queues: stats },
      table(
        ['queue', 'inserted', 'duplicates', 'waited', 'refused'],
        Object.entries(stats).map(([queue, { inserted, duplicates, waiting, refused }]) => [
          queue,
          inserted,
          duplicates,
          waiting,
          refused,
        ]),
      ),
    );
    return stopping.reason instanceof InterruptedError ? 0 : 1;
  };
}
