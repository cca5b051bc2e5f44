import { setInterval as every } from 'node:timers';

import type pg from 'pg';

import { readStatus, type RunStatus } from '../backfill/status.ts';
import { TRANSFORMS } from '../backfill/transforms/index.ts';
import { createPool } from '../database/connection.ts';
import { migrationStatus } from '../database/migrations.ts';
import { readTotals, type Totals } from '../ledger/totals.ts';
import { readReports, type WorkerReport } from '../metrics/reports.ts';
import { METRIC } from '../metrics/workerMetrics.ts';
import { EVENT_KINDS, type EventKind } from '../queues/catalogue.ts';
import { DeadLetterReader, type DeadLetterReasons } from './deadLetters.ts';
import { figuresOf, sum, type Figures } from './figures.ts';
import { History } from './history.ts';
import { readQueue, type AllQueues, type QueueFigures } from './queues.ts';
import { readLastRecount, type LastRecount } from './recounts.ts';
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
  /** Null until they have been read. */
  totals: Totals | null;
  reports: WorkerReport[];
  /** When these were read, as `performance.now()` tells. */
  reportsAt: number;
  /** On the board's machine. */
  spoolBytes: number;
  backfills: RunStatus[];
  deadLetters: DeadLetterReasons;
  /** Null before the first. */
  recount: LastRecount | null;
}

export interface Watch {
  sight(): Sight;
  history: History;
  close(): Promise<void>;
}

export interface WatchOptions {
  databaseUrl: string;
  queues: Pick<AllQueues, 'get'>;
  /** Folders of this machine in which producers put events aside. */
  spools: readonly string[];
}

/**
 * Milliseconds between two looks, and in which each of the two steps of a look has to end. A server
 * that goes away in the middle of a look is missed by the first step of the next one: at most a step,
 * a pause and a step later, within the 10 s in which `/readyz` tells.
 */
const LOOK = { everyMs: 1000, limitMs: 2500 };

/** Milliseconds between two looks at what costs more and changes less. */
const SELDOM_MS = 10_000;

const NOT_LOOKED = 'not looked at yet';

/**
 * Looks at the database and the queues once a second, whoever watches, so that what is shown is
 * cheap to show, has a history, and never waits for a server that is away.
 */
export function startWatch({ databaseUrl, queues, spools }: WatchOptions): Watch {
  const pool = createPool({
    connectionString: databaseUrl,
    max: 2,
    connectionTimeoutMillis: LOOK.limitMs,
    query_timeout: LOOK.limitMs,
    application_name: 'annals board',
  });
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
    totals: null,
    reports: [],
    reportsAt: 0,
    spoolBytes: 0,
    backfills: [],
    deadLetters: { groups: [], unread: 0 },
    recount: null,
  };

  let letters: DeadLetterReader[] | undefined;
  const seldom = new Seldom();
  const look = async () => {
    const [database, queue, spool] = await Promise.all([
      attempt(() => pool.query('SELECT 1')),
      attempt(async () => Promise.all(queues.get().map(readQueue))),
      attempt(() => spoolBytes(spools)),
    ]);
    const next = { ...sight, checks: { ...sight.checks } };
    const lettersAreDue = !queue.fault && seldom.due('dead letters');
    const [measured, migrations, found] = await Promise.all([
      database.fault ? undefined : attempt(() => measure(pool)),
      !database.fault && seldom.due('migrations', next.checks.migrations !== null)
        ? attempt(() => migrationStatus(databaseUrl))
        : undefined,
      lettersAreDue
        ? attempt(() => {
            letters ??= queues.get().map((queue) => new DeadLetterReader(queue));
            return Promise.all(letters.map((reader) => reader.read()));
          })
        : undefined,
    ]);

    if (spool.value !== undefined) next.spoolBytes = spool.value;
    if (queue.value) next.queues = queue.value;
    if (migrations) next.checks.migrations = migrations.fault ?? pendingOf(migrations.value);
    if (found?.value) next.deadLetters = togetherOf(found.value);
    next.checks.queue = queue.fault;
    next.checks.database = database.fault;
    next.at = Date.now();
    if (measured?.value) {
      const { figures, ...seen } = measured.value;
      Object.assign(next, seen);
      history.add(next.at, seen.totals, figures, next.queues);
      // What is not known cannot be told to stand still.
      if (!queue.fault) next.checks.commits = stallOf(next.queues, seen.totals, figures);
    } else if (measured && next.checks.migrations === null) {
      // Without its tables a database has no figures, and `migrations` says so.
      next.checks.database = `figures cannot be read: ${measured.fault}`;
    }
    sight = next;
  };
  const stallOf = (seen: readonly QueueFigures[], totals: Totals, figures: Figures): Fault => {
    const events = seen.filter(({ name }) => EVENT_KINDS.some((kind) => kind === name));
    /** Events that are through with, one way or another. */
    const settled = (kind: EventKind) =>
      totals[kind].committed +
      totals[kind].duplicates +
      sum(figures.values(), METRIC.deadLettered, { kind });
    const stalled = stalls.look(events, (kind) => settled(kind as EventKind), performance.now());
    return stalled.length > 0 ? stalled.join('; ') : null;
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

/** What the tables tell, read at about the same moment. */
async function measure(pool: pg.Pool) {
  const [totals, reports, recount, backfills] = await Promise.all([
    readTotals(pool),
    readReports(pool),
    readLastRecount(pool),
    readStatus(
      pool,
      TRANSFORMS.map(({ name }) => name),
    ),
  ]);
  return {
    totals,
    reports,
    reportsAt: performance.now(),
    recount,
    backfills,
    figures: figuresOf(reports),
  };
}

function togetherOf(found: readonly DeadLetterReasons[]): DeadLetterReasons {
  return {
    groups: found.flatMap(({ groups }) => groups),
    unread: found.reduce((total, { unread }) => total + unread, 0),
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
