// A worker process to be killed: DATABASE_URL, and the queue location as an argument.
import { startBackfillWorker } from '../../src/backfill/worker.ts';
import { loadConfig } from '../../src/config.ts';
import { createLogger } from '../../src/logger.ts';

// Ends with the process that started it, if that gave it a channel.
process.once('disconnect', () => process.exit());

const config = loadConfig();
await startBackfillWorker({
  databaseUrl: config.DATABASE_URL ?? '',
  queue: JSON.parse(process.argv[2] ?? ''),
  log: createLogger(config),
  lookEveryMs: 100,
  leaseMs: 2000, // more than a task waits for its turn, on a busy machine too
  jobLockMs: 1000,
});
