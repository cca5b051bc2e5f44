/* A worker process that tells its figures. */
import { loadConfig } from '../config.ts';
import { openServers } from '../embedded/index.ts';
import { createLogger } from '../logger.ts';
import { startReporter } from '../metrics/reports.ts';
import { createWorkerMetrics } from '../metrics/workerMetrics.ts';
import { startWorkers } from '../workers/runtime.ts';
import { belongToParent, tellParent, type WorkerMessage } from './children.ts';

/** The rate that the demo prints is as exact as this. */
const LOOK_EVERY_MS = 50;

belongToParent(async () => {
  clearInterval(timer);
  await tell(); // so that the time of the last commit is not that of the end
  await workers.stop(5000);
  await reporter.stop();
  await tell();
  process.exit();
});

const config = loadConfig();
const log = createLogger(config);
const { databaseUrl, queue } = await openServers(config);
const name = `demo:${process.pid}`;
const { hooks, snapshot } = createWorkerMetrics(name);
const reporter = startReporter({ databaseUrl, worker: name, snapshot, log });
const workers = await startWorkers({ databaseUrl, queue, config, log, hooks });

let told: WorkerMessage = { committed: 0, duplicates: 0, waiting: 0, committedAt: 0 };
await tellParent(told);
const timer = setInterval(() => void tell(), LOOK_EVERY_MS);

async function tell(): Promise<void> {
  const figures = { ...told, committed: 0, duplicates: 0, waiting: 0 };
  for (const { inserted, duplicates, waiting } of Object.values(workers.stats())) {
    figures.committed += inserted;
    figures.duplicates += duplicates;
    figures.waiting += waiting;
  }
  if (figures.committed > told.committed) figures.committedAt = Date.now();
  if (JSON.stringify(figures) === JSON.stringify(told)) return;
  told = figures;
  await tellParent(figures);
}
