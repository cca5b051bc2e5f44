import { constants } from 'node:os';

import { Closer } from '../src/closer.ts';
import { applyMigrations } from '../src/database/migrations.ts';
import { openGround, type Ground } from '../src/demo/ground.ts';
import { createLogger } from '../src/logger.ts';

/** Milliseconds in which everything is stopped and removed. */
const CLOSE_MS = 20_000;

/** Runs `work` on embedded servers in a temporary folder, of which nothing is left. */
export async function onOwnGround<T>(work: (ground: Ground) => Promise<T>): Promise<T> {
  const closer = new Closer(createLogger({ ANNALS_LOG_LEVEL: 'warn', ANNALS_LOG_FORMAT: 'auto' }));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      void closer.close(CLOSE_MS).then(() => process.exit(128 + constants.signals[signal]));
    });
  }
  try {
    const ground = await openGround(closer, false, console.log);
    console.log(ground.explanation);
    await applyMigrations(ground.databaseUrl);
    return await work(ground);
  } finally {
    await closer.close(CLOSE_MS);
  }
}
