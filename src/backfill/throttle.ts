import type pg from 'pg';

import { serverMessage } from '../database/faults.ts';
import { EVENT_KINDS, type EventKind } from '../queues/catalogue.ts';
import { openQueue, type QueueLocation } from '../queues/backend.ts';
import { inTransaction, one } from './database.ts';

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

/** Milliseconds for which a reading serves, at least: chunks of several lanes share it. */
const FRESH_MS = 200;

/** Milliseconds in which a signal has to be read. */
const READ_MS = 2000;

/** Milliseconds that an answer which comes in time may be on its way, behind others of this process. */
const GRACE_MS = 500;

/**
 * How far the replicas are behind, and why that cannot be told. A sender whose figures we may not
 * see has no state. One that is not streaming (a replica that catches up) has no lag, nor has one
 * that was sent something and has not answered; but neither has one that has caught up, and a
 * base backup is none. A physical slot that nobody reads is a replica that went away: what a run
 * writes is kept for it, until the disk is full.
 */
const LAG = `
WITH replica AS (
  SELECT extract(epoch FROM "replay_lag") * 1000 AS "lagMs",
    CASE WHEN "state" IS NULL THEN 'no figure (is the role in pg_monitor?)'
      WHEN "state" <> 'streaming' THEN format('the replica %s is at %s', "application_name", "state")
      WHEN "replay_lag" IS NULL AND "sent_lsn" > "replay_lsn" THEN format('the replica %s has not answered', "application_name")
    END AS "why"
  FROM pg_stat_replication WHERE "state" IS DISTINCT FROM 'backup'
  UNION ALL
  SELECT NULL, format('nobody reads the replication slot %I', "slot_name")
  FROM pg_replication_slots WHERE "slot_type" = 'physical' AND NOT "active" AND "restart_lsn" IS NOT NULL
)
SELECT CASE WHEN count("why") = 0 THEN coalesce(max("lagMs"), 0) END::float8 AS "lagMs", min("why") AS "why" FROM replica`;

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
  const readings = new Map<string, { until: number; reading: Promise<Reading> }>();

  const depths = () =>
    Promise.all(
      queues.map(async ({ kind, queue }) => ({
        kind,
        jobs: await queue.getJobCountByTypes('waiting', 'prioritized'),
      })),
    );
  // PostgreSQL ends a query that takes too long, which frees its connection; we wait no longer
  // than a little beyond that, whatever has become of the server.
  const ask = <Row extends pg.QueryResultRow>(text: string, params: unknown[] = []) =>
    within(
      READ_MS + GRACE_MS,
      inTransaction(pool, (sql) => one<Row>(sql, text, params), { statementTimeoutMs: READ_MS }),
    );
  const read = async (table: string, lagSql: string): Promise<Reading> => {
    const [lag, signals, queued] = await Promise.allSettled([
      ask<Record<string, number | string | null>>(lagSql),
      ask<Signals>(SIGNALS, [table]),
      within(READ_MS, depths()),
    ]);
    return { lag, signals, queued };
  };
  // One reading of a table at a time, and then as long without one as it took: a query that hangs
  // holds up other tables, whose chunks the same worker does, for half of its time at most.
  const begin = (key: string, table: string, lagSql: string): Promise<Reading> => {
    const startedAt = performance.now();
    const kept = {
      until: Infinity,
      reading: read(table, lagSql).finally(() => {
        const now = performance.now();
        kept.until = now + Math.max(FRESH_MS, now - startedAt);
      }),
    };
    readings.set(key, kept);
    return kept.reading;
  };

  return {
    holds: async (table, limits) => {
      const key = `${table} ${limits.lagSql ?? ''}`;
      const last = readings.get(key);
      const isFresh = last && performance.now() < last.until;
      const reading = isFresh ? last.reading : begin(key, table, limits.lagSql ?? LAG);
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

  const [lagValue = null] = Object.values(lag.value ?? {});
  const lagMs = lagValue === null ? NaN : Number(lagValue);
  const hidden = new Error('no figure (is the role in pg_monitor?)');
  if (Number.isNaN(lagMs)) {
    const why = lag.value?.['why'];
    return unreadable('replica lag', why ? new Error(String(why)) : hidden);
  }
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
