// A worker process, to be killed or measured: DATABASE_URL, and queue and timings as an argument.
import { startBackfillWorker } from '../../src/backfill/worker.ts';
import { loadConfig } from '../../src/config.ts';
import { createLogger } from '../../src/logger.ts';
import type { Report } from './workerProcess.ts';

// Ends with the process that started it, if that gave it a channel.
process.once('disconnect', () => process.exit());

const config = loadConfig();
const { queue, timings } = JSON.parse(process.argv[2] ?? '');
const worker = await startBackfillWorker({
  databaseUrl: config.DATABASE_URL ?? '',
  queue,
  log: createLogger(config),
  ...timings,
});
process.on('message', () => void worker.look());
const report = () => process.send?.({ rss: process.memoryUsage.rss() } satisfies Report);
report();
setInterval(report, 200);
