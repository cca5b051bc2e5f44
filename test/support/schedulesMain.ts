// A process that takes scheduled runs, for tests that kill it: DATABASE_URL and the queue location
// as arguments.
import { loadConfig } from '../../src/config.ts';
import { createLogger } from '../../src/logger.ts';
import type { QueueLocation } from '../../src/queues/backend.ts';
import { startSchedules } from '../../src/schedules/runner.ts';

const config = loadConfig();
const queue = JSON.parse(process.argv[2] ?? '') as QueueLocation;
await startSchedules({
  databaseUrl: config.DATABASE_URL ?? '',
  queue,
  config,
  log: createLogger(config),
});
