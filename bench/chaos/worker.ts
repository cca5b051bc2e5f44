/* A worker process that is killed, frozen and cut off: DATABASE_URL, and the queue as an argument. */
import { loadConfig } from '../../src/config.ts';
import { createLogger } from '../../src/logger.ts';
import { startWorkers } from '../../src/workers/runtime.ts';

// Ends with the process that started it, which may be gone by now.
process.once('disconnect', () => process.exit(1));
if (!process.connected) process.exit(1);

const config = loadConfig();
const workers = await startWorkers({
  databaseUrl: config.DATABASE_URL ?? '',
  queue: JSON.parse(process.argv[2] ?? ''),
  config,
  log: createLogger(config),
});
process.once('message', () => void workers.stop(10_000).then(() => process.exit()));
