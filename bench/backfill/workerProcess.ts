import { spawn, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import type { BackfillWorkerOptions } from '../../src/backfill/worker.ts';
import type { Ground } from '../../src/demo/ground.ts';

/** What tells how soon a worker's lanes are given to another. */
export type Timings = Pick<BackfillWorkerOptions, 'lookEveryMs' | 'leaseMs' | 'jobLockMs'>;

/** What a worker process says to the one that started it. */
export interface Report {
  /** Bytes of memory that it has now. */
  rss: number;
}

/** Starts a process that runs the engine and nothing else; it takes the message `look`. */
export function startWorker(
  { databaseUrl, queue, env }: Pick<Ground, 'databaseUrl' | 'queue' | 'env'>,
  timings: Timings = {},
): ChildProcess {
  const file = fileURLToPath(new URL('worker.ts', import.meta.url));
  return spawn(process.execPath, ['--import', 'tsx', file, JSON.stringify({ queue, timings })], {
    env: { ...env, DATABASE_URL: databaseUrl, ANNALS_LOG_LEVEL: 'silent' },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
}
