// A worker process to be fed with anything: DATABASE_URL, and the queue location as an argument.
import { loadConfig } from '../../src/config.ts';
import { createLogger } from '../../src/logger.ts';
import { startWorkers } from '../../src/workers/runtime.ts';

const config = loadConfig();
await startWorkers({
  databaseUrl: config.DATABASE_URL ?? '',
  queue: JSON.parse(process.argv[2] ?? ''),
  config,
  log: createLogger(config),
});
process.once('disconnect', () => process.exit()); // ends with the process that started it
process.send?.('ready');
