import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setInterval as every } from 'node:timers';

import type pg from 'pg';

import { createPool } from '../database/connection.ts';
import type { Logger } from '../logger.ts';
import type { MetricsSnapshot } from './workerMetrics.ts';

// Workers may run anywhere and in any number, so each leaves what it measures in the database that
// all of them write to, and the board shows it: no worker listens, and nobody has to know of them.

/** What one worker process measured. */
export interface WorkerReport {
  worker: string;
  metrics: MetricsSnapshot;
  /** Milliseconds since it was written. */
  ageMs: number;
}

/**
 * A name that no other worker process has: containers may share both host name and process id, and
 * each would overwrite what the other measured.
 *
 * @example nameWorker() // 'web-1:4711:8d3f0a'
 */
export const nameWorker = (): string =>
  `${hostname()}:${process.pid}:${randomBytes(3).toString('hex')}`;

export interface Reporter {
  /** Writes a last report and disconnects. Never rejects. */
  stop(): Promise<void>;
}

/** Milliseconds between two reports. */
const EVERY_MS = 1000;

/** A worker's series stay in `/metrics` for this long after it is gone, so that the last are read. */
const KEEP = '15 minutes';

const WRITE = `
INSERT INTO "WorkerReport" ("worker", "metrics", "updatedAt")
VALUES ($1, $2, now() AT TIME ZONE 'utc')
ON CONFLICT ("worker") DO UPDATE
SET "metrics" = excluded."metrics", "updatedAt" = excluded."updatedAt"`;

const FORGET = `
DELETE FROM "WorkerReport" WHERE "updatedAt" < now() AT TIME ZONE 'utc' - interval '${KEEP}'`;

const READ = `
SELECT "worker", "metrics",
  (extract(epoch FROM now() AT TIME ZONE 'utc' - "updatedAt") * 1000)::float8 AS "ageMs"
FROM "WorkerReport" WHERE "updatedAt" > now() AT TIME ZONE 'utc' - interval '${KEEP}'
ORDER BY "worker"`;

/**
 * Reports what `snapshot` gives once a second, on a connection of its own. A report that fails is
 * left out; the next one says everything again.
 *
 * @example
 * const reporter = startReporter({ databaseUrl, worker: 'web-1:4711:8d3f0a', snapshot: metrics.snapshot, log });
 */
export function startReporter(options: {
  databaseUrl: string;
  worker: string;
  snapshot: () => Promise<MetricsSnapshot>;
  log: Logger;
}): Reporter {
  const { worker, snapshot, log } = options;
  const pool = createPool({
    connectionString: options.databaseUrl,
    max: 1,
    query_timeout: 5000,
    application_name: 'annals report',
  });
  const send = async () => {
    try {
      await pool.query(WRITE, [worker, JSON.stringify(await snapshot())]);
    } catch (error) {
      log.debug({ reason: (error as Error).message }, 'no report of what was measured');
    }
  };
  let sending: Promise<void> | undefined;
  const report = () => (sending ??= send().finally(() => (sending = undefined)));
  const timer = every(() => void report(), EVERY_MS);
  const ready = pool.query(FORGET).catch(() => {});
  return {
    stop: async () => {
      clearInterval(timer);
      await ready;
      await sending; // what it says may be older than the last write
      await report();
      await pool.end();
    },
  };
}

/** What the workers of the last 15 minutes measured. */
export async function readReports(pool: Pick<pg.Pool, 'query'>): Promise<WorkerReport[]> {
  const { rows } = await pool.query<WorkerReport>(READ);
  return rows;
}
