// A worker process to be killed: DATABASE_URL, and the queue location as an argument.
import { startBackfillWorker } from '../../src/backfill/worker.ts';
import { loadConfig } from '../../src/config.ts';
import { createLogger } from '../../src/logger.ts';

const config = loadConfig();
await startBackfillWorker({
  databaseUrl: config.DATABASE_URL ?? '',
  queue: JSON.parse(process.argv[2] ?? ''),
  log: createLogger(config),
  lookEveryMs: 100,
  leaseMs: 1000,
  jobLockMs: 1000,
});
process.once('disconnect', () => process.exit()); // ends with the process that started it
