import type pg from 'pg';

import { serverMessage } from '../database/faults.ts';
import { EVENT_KINDS, type EventKind } from '../queues/catalogue.ts';
import { openQueue, type QueueLocation } from '../queues/backend.ts';
import { one } from './database.ts';

/** Beyond which a run holds, until it is below again. They stand in the run's row. */
export interface Limits {
  /** Milliseconds that a replica may be behind. */
  lagMs: number;
  /** SQL that gives the lag in milliseconds, such as from a heartbeat table; else the server's own figure. */
  lagSql?: string;
  /** Milliseconds that another session may have waited for a lock. */
  waitMs: number;
  /** Milliseconds that a vacuum of the table may have been running. */
  vacuumMs: number;
  /** Milliseconds that a write of the event workers may take. */
  writeMs: number;
  /** Jobs that may wait in one of the event queues. */
  queuedJobs: number;
}

export const DEFAULT_LIMITS: Limits = {
  lagMs: 5000,
  waitMs: 1000,
  vacuumMs: 30_000,
  writeMs: 2000,
  queuedJobs: 1000,
};

export interface Throttle {
  /** Says what holds work on the table, for people, or nothing if it may go on. */
  holds(table: string, limits: Limits): Promise<string | undefined>;
  close(): Promise<void>;
}

/** Milliseconds for which a reading serves: chunks of several lanes share it. */
const FRESH_MS = 200;

/** Milliseconds in which a signal has to be read. */
const READ_MS = 2000;

/** A sender whose figures we may not see has no state; a replica that has caught up has no lag. */
const LAG = `SELECT CASE WHEN bool_or("state" IS NULL) THEN NULL
  ELSE coalesce(max(extract(epoch FROM "replay_lag")), 0) * 1000 END::float8 AS "lagMs" FROM pg_stat_replication HAVING count(*) > 0
UNION ALL SELECT 0 WHERE NOT EXISTS (SELECT FROM pg_stat_replication)`;

// Our own sessions wait for a second at most, and are not what holding would help. What a session
// does is hidden from a role that is neither its own nor in pg_monitor, but not its locks, its
// process and its application: so one that is hidden gives NULL, and no reading passes for a zero.
const SIGNALS = `
SELECT
  (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - l."waitstart")), 0) * 1000
   FROM pg_locks l JOIN pg_stat_activity a USING (pid)
   WHERE NOT l."granted" AND a.datname = current_database() AND a.application_name <> 'annals backfill')::float8 AS "waitMs",
  (SELECT CASE WHEN bool_or(a.query_start IS NULL) THEN NULL
     ELSE coalesce(max(extract(epoch FROM clock_timestamp() - a.query_start)), 0) * 1000 END
   FROM pg_stat_progress_vacuum v JOIN pg_stat_activity a USING (pid) JOIN pg_locks l USING (pid)
   WHERE v.datname = current_database() AND l."mode" = 'ShareUpdateExclusiveLock'
     AND l."relation" = to_regclass(quote_ident($1)) AND l."database" = a.datid)::float8 AS "vacuumMs",
  (SELECT CASE WHEN bool_or(state IS NULL) THEN NULL
     ELSE coalesce(max(extract(epoch FROM clock_timestamp() - query_start)) FILTER (WHERE state = 'active'), 0) * 1000 END
   FROM pg_stat_activity
   WHERE datname = current_database() AND application_name = 'annals worker')::float8 AS "writeMs"`;

/**
 * Reads five signals: replica lag, sessions that wait for locks, vacuum of the table, how long the
 * event workers' present writes take, and how deep their queues are. A signal that cannot be read
 * holds the run as one that is too high does: what is not seen may be at its worst.
 */
export function createThrottle(pool: pg.Pool, location: QueueLocation): Throttle {
  const queues = EVENT_KINDS.map((kind) => ({ kind, queue: openQueue(location, kind) }));
  for (const { queue } of queues) queue.on('error', () => {}); // a call that matters rejects
  const readings = new Map<string, { at: number; reading: Promise<Reading> }>();

  const depths = () =>
    Promise.all(
      queues.map(async ({ kind, queue }) => ({
        kind,
        jobs: await queue.getJobCountByTypes('waiting', 'prioritized'),
      })),
    );
  const read = async (table: string, lagSql: string): Promise<Reading> => {
    const [lag, signals, queued] = await Promise.allSettled([
      one<Record<string, number | null>>(pool, lagSql),
      one<Signals>(pool, SIGNALS, [table]),
      within(READ_MS, depths()),
    ]);
    return { lag, signals, queued };
  };

  return {
    holds: async (table, limits) => {
      const key = `${table} ${limits.lagSql ?? ''}`;
      const last = readings.get(key);
      const isFresh = last && performance.now() - last.at < FRESH_MS;
      const reading = isFresh ? last.reading : read(table, limits.lagSql ?? LAG);
      if (!isFresh) readings.set(key, { at: performance.now(), reading });
      return judge(await reading, limits);
    },
    close: async () => {
      await Promise.all(queues.map(({ queue }) => queue.close()));
    },
  };
}

interface Signals {
  waitMs: number;
  /** Null where it is hidden from our role. */
  vacuumMs: number | null;
  writeMs: number | null;
}

interface Reading {
  lag: PromiseSettledResult<Record<string, number | string | null>>;
  signals: PromiseSettledResult<Signals>;
  queued: PromiseSettledResult<{ kind: EventKind; jobs: number }[]>;
}

function judge({ lag, signals, queued }: Reading, limits: Limits): string | undefined {
  const unreadable = (what: string, error: unknown) =>
    `held: ${what} cannot be read: ${serverMessage(error)}`;
  if (lag.status === 'rejected') return unreadable('replica lag', lag.reason);
  if (signals.status === 'rejected')
    return unreadable('the activity of PostgreSQL', signals.reason);
  if (queued.status === 'rejected') return unreadable('the depth of the queues', queued.reason);

  const lagValue = Object.values(lag.value ?? {})[0];
  const lagMs = lagValue === null || lagValue === undefined ? NaN : Number(lagValue);
  const hidden = new Error('no figure (is the role in pg_monitor?)');
  if (Number.isNaN(lagMs)) return unreadable('replica lag', hidden);
  const { waitMs, vacuumMs, writeMs } = signals.value;
  if (vacuumMs === null) return unreadable('the vacuum of the table', hidden);
  if (writeMs === null) return unreadable('the writes of the event workers', hidden);
  const deepest = queued.value.toSorted((a, b) => b.jobs - a.jobs)[0];
  const over = (value: number, limit: number, what: string) =>
    value > limit ? `held: ${what} ${Math.round(value)} ms, over ${limit}` : undefined;
  return (
    over(lagMs, limits.lagMs, 'a replica is behind by') ??
    over(waitMs, limits.waitMs, 'a session has waited for a lock for') ??
    over(vacuumMs, limits.vacuumMs, 'the table has been under vacuum for') ??
    over(writeMs, limits.writeMs, 'a write of the event workers has taken') ??
    (deepest && deepest.jobs > limits.queuedJobs
      ? `held: ${deepest.jobs} jobs wait in ${deepest.kind}, over ${limits.queuedJobs}`
      : undefined)
  );
}

function within<T>(milliseconds: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}
