import { setInterval as every } from 'node:timers';

import type { Queue } from 'bullmq';
import pg from 'pg';

import { readStatus, type RunStatus } from '../backfill/status.ts';
import { TRANSFORMS } from '../backfill/transforms/index.ts';
import { migrationStatus } from '../database/migrations.ts';
import { NO_TOTALS, readTotals, type Totals } from '../ledger/totals.ts';
import { readReports, type WorkerReport } from '../metrics/reports.ts';
import { METRIC } from '../metrics/workerMetrics.ts';
import { EVENT_KINDS, type EventKind } from '../queues/catalogue.ts';
import { readDeadLetters, type DeadLetterGroup } from './deadLetters.ts';
import { figuresOf, sum } from './figures.ts';
import { History } from './history.ts';
import { readQueue, type QueueFigures } from './queues.ts';
import { spoolBytes } from './spool.ts';
import { StallWatch } from './stall.ts';

/** What is wrong with a part of the house, for people; null if nothing is. */
export type Fault = string | null;

export interface Checks {
  database: Fault;
  queue: Fault;
  migrations: Fault;
  commits: Fault;
}

/** The house as it was last seen. What could not be read is as it was before. */
export interface Sight {
  /** Milliseconds since 1970; 0 before the first look has ended. */
  at: number;
  checks: Checks;
  queues: QueueFigures[];
  totals: Totals;
  reports: WorkerReport[];
  /** On the board's machine. */
  spoolBytes: number;
  backfills: RunStatus[];
  deadLetters: DeadLetterGroup[];
}

export interface Watch {
  sight(): Sight;
  history: History;
  close(): Promise<void>;
}

export interface WatchOptions {
  databaseUrl: string;
  queues: readonly Queue[];
  /** Folders of this machine in which producers put events aside. */
  spools: readonly string[];
}

/** Milliseconds between two looks, and in which a look has to end. Together they stay below the 10 s in which `/readyz` tells. */
const LOOK = { everyMs: 1000, limitMs: 2500 };

/** Milliseconds between two looks at what costs more and changes less. */
const SELDOM_MS = 10_000;

const NOT_LOOKED = 'not looked at yet';

/**
 * Looks at the database and the queues once a second, whoever watches, so that what is shown is
 * cheap to show, has a history, and never waits for a server that is away.
 */
export function startWatch({ databaseUrl, queues, spools }: WatchOptions): Watch {
  const pool = new pg.Pool({
    connectionString: databaseUrl,
    max: 2,
    connectionTimeoutMillis: LOOK.limitMs,
    query_timeout: LOOK.limitMs,
    keepAlive: true,
    application_name: 'annals board',
  });
  pool.on('error', () => {}); // the next query opens another connection
  const history = new History();
  const stalls = new StallWatch();
  let sight: Sight = {
    at: 0,
    checks: {
      database: NOT_LOOKED,
      queue: NOT_LOOKED,
      migrations: NOT_LOOKED,
      commits: NOT_LOOKED,
    },
    queues: [],
    totals: NO_TOTALS,
    reports: [],
    spoolBytes: 0,
    backfills: [],
    deadLetters: [],
  };

  const seldom = new Seldom();
  const look = async () => {
    const [database, queue, spool] = await Promise.all([
      attempt(() => pool.query('SELECT 1')),
      attempt(() => Promise.all(queues.map(readQueue))),
      attempt(() => spoolBytes(spools)),
    ]);
    const next = { ...sight, checks: { ...sight.checks } };
    next.checks.database = database.fault;
    next.checks.queue = queue.fault;
    if (spool.value !== undefined) next.spoolBytes = spool.value;
    if (queue.value) next.queues = queue.value;
    if (!database.fault) {
      const [totals, reports, backfills, migrations] = await Promise.all([
        attempt(() => readTotals(pool)),
        attempt(() => readReports(pool)),
        attempt(() =>
          readStatus(
            pool,
            TRANSFORMS.map(({ name }) => name),
          ),
        ),
        seldom.due('migrations', next.checks.migrations !== null)
          ? attempt(() => migrationStatus(databaseUrl))
          : undefined,
      ]);
      if (totals.value) next.totals = totals.value;
      if (reports.value) next.reports = reports.value;
      if (backfills.value) next.backfills = backfills.value;
      if (migrations) next.checks.migrations = migrations.fault ?? pendingOf(migrations.value);
    }
    if (!queue.fault && seldom.due('dead letters')) {
      const found = await attempt(() => Promise.all(queues.map(readDeadLetters)));
      if (found.value) next.deadLetters = found.value.flat();
    }
    const figures = figuresOf(next.reports);
    const events = next.queues.filter(({ name }) => EVENT_KINDS.some((kind) => kind === name));
    /** Events that are through with, one way or another. */
    const settled = (kind: EventKind) =>
      next.totals[kind].committed +
      next.totals[kind].duplicates +
      sum(figures.values(), METRIC.deadLettered, { kind });
    const stalled = stalls.look(events, (kind) => settled(kind as EventKind), performance.now());
    next.checks.commits = stalled.length > 0 ? stalled.join('; ') : null;
    next.at = Date.now();
    if (!database.fault) history.add(next.at, next.totals, figures, next.queues);
    sight = next;
  };
  let looking: Promise<void> | undefined;
  const tick = () => (looking ??= look().finally(() => (looking = undefined)));
  const timer = every(() => void tick(), LOOK.everyMs);
  void tick();

  return {
    sight: () => sight,
    history,
    close: async () => {
      clearInterval(timer);
      await looking;
      await pool.end();
    },
  };
}

function pendingOf(status: Awaited<ReturnType<typeof migrationStatus>> | undefined): Fault {
  const open = (status?.pending.length ?? 0) + (status?.failed.length ?? 0);
  return open === 0 ? null : `${open} migrations are not applied; run: npx annals migrate`;
}

/** Runs a part of a look within its time; what fails is a fault, never an error. */
async function attempt<T>(work: () => Promise<T>): Promise<{ value?: T; fault: Fault }> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('no answer')), LOOK.limitMs);
  });
  try {
    return { value: await Promise.race([work(), late]), fault: null };
  } catch (error) {
    // Node reports a host of several addresses without a message.
    return { fault: (error as Error).message || 'does not answer' };
  } finally {
    clearTimeout(timer);
  }
}

/** Says whether it is time again. */
class Seldom {
  readonly #last = new Map<string, number>();

  due(what: string, isUrgent = false): boolean {
    const isDue = isUrgent || performance.now() - (this.#last.get(what) ?? -SELDOM_MS) >= SELDOM_MS;
    if (isDue) this.#last.set(what, performance.now());
    return isDue;
  }
}
