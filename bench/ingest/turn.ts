import { setTimeout as sleep } from 'node:timers/promises';

import { withClient } from '../backfill/data.ts';
import type { Contestant } from '../contestants/contestant.ts';
import { CONTESTANTS, type ContestantName } from '../contestants/index.ts';
import type { ChildTask, Usage } from './child.ts';
import { dropQueues, resetTables, verify, type Verdict } from './database.ts';
import type { Ground } from './ground.ts';
import { PRODUCERS, type Load } from './load.ts';
import { Child } from './process.ts';

/** Seconds in which a contestant has to have stored everything. */
const DEADLINE_S = 300;

/** What a turn showed. */
export interface Turn {
  events: number;
  seconds: number;
  /** Of the contestant's processes together, between the start and the last commit. */
  cpuSeconds: number;
  postgresCpuSeconds: number | null;
  redisCpuSeconds: number | null;
  peakRssMb: Record<string, number>;
  /** That PostgreSQL wrote to its log. */
  walBytes: number;
  verdict: Verdict;
}

/** Events that the contestant takes of so many. */
export const eventsFor = (contestant: Contestant, events: number): number =>
  Math.min(events, contestant.maxEvents ?? events);

/** How a turn differs from that of the comparison. */
export interface TurnOptions {
  /** Processes that consume. Default 1. */
  workers?: number;
  /** Puts the tables into the state in which it begins. Default: they hold nothing but parents. */
  reset?: (databaseUrl: string, load: Load) => Promise<void>;
  /** Rows that occurred before this time are not the load's. Default: all are. */
  since?: Date;
  /**
   * Events that the turn's processes store first, off the clock, and that are removed: what runs for
   * weeks has its code compiled. Default: 100,000 for each worker process, but half of the load
   * at most.
   */
  warmUp?: number;
}

/** Events of a warm-up for each worker process: with fewer, code is still compiled while the clock runs. */
const WARM_UP_EVENTS = 100_000;

/**
 * Has a contestant store the load, or its part of it.
 *
 * @param full - the load that has its right rows in the database
 * @throws when it fails or takes too long
 */
export async function takeTurn(
  ground: Ground,
  name: ContestantName,
  full: Load,
  events: number,
  {
    workers: workerCount = 1,
    reset = resetTables,
    since,
    warmUp = Math.min(WARM_UP_EVENTS * workerCount, Math.ceil(events / 2)),
  }: TurnOptions = {},
): Promise<Turn> {
  const contestant: Contestant = CONTESTANTS[name];
  await ground.redis?.flushall();
  await dropQueues(ground.place.databaseUrl);
  await reset(ground.place.databaseUrl, full);
  const task: ChildTask = {
    contestant: name,
    role: 'prepare',
    producer: 0,
    load: { ...full, events },
    warmUp,
    place: ground.place,
  };
  const children: Child[] = [];
  const start = (label: string, more: Partial<ChildTask>) => {
    const child = new Child(label, { ...task, ...more });
    children.push(child);
    return child;
  };
  try {
    if (contestant.prepare) await start('prepare', {}).exited();
    const producers = Array.from({ length: PRODUCERS }, (_, producer) =>
      start(`producer-${producer}`, { role: 'producer', producer }),
    );
    const workers = Array.from({ length: contestant.consume ? workerCount : 0 }, (_, n) =>
      start(n === 0 ? 'worker' : `worker-${n}`, { role: 'worker' }),
    );
    const crew = [...producers, ...workers];
    await Promise.all(crew.map((child) => child.next('ready')));
    const ended = Promise.race(crew.map((child) => child.ended));
    ended.catch(() => {}); // told by whoever waits
    if (warmUp > 0) {
      await withDeadline(run(contestant, producers, workers, warmUp, 'warm up'), ended);
      await reset(ground.place.databaseUrl, full);
    }
    for (const worker of workers) worker.order('go');

    const walBefore = await walPosition(ground);
    const cpuBefore = ground.cpuSeconds();
    const startedAt = Date.now();
    const lastCommitAt = await withDeadline(
      run(contestant, producers, workers, events, 'go'),
      ended,
    );
    const cpuAfter = ground.cpuSeconds();
    const walAfter = await walPosition(ground);
    const usages = await Promise.all(crew.map((child) => child.stop()));
    await Promise.all(crew.map((child) => child.exited()));
    return {
      events,
      seconds: (lastCommitAt - startedAt) / 1000,
      cpuSeconds: usages.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0),
      postgresCpuSeconds: difference(cpuAfter.postgres, cpuBefore.postgres),
      redisCpuSeconds: difference(cpuAfter.redis, cpuBefore.redis),
      peakRssMb: Object.fromEntries(crew.map(({ name: who }, n) => [who, rss(usages[n])])),
      walBytes: walAfter - walBefore,
      verdict: await verify(ground.place.databaseUrl, events, since),
    };
  } finally {
    for (const child of children) child.kill();
  }
}

/** Bytes that were ever written to the log. */
const walPosition = ({ place }: Ground): Promise<number> =>
  withClient(place.databaseUrl, async (client) => {
    const { rows } = await client.query<{ bytes: number }>(
      `SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 AS bytes`,
    );
    return rows[0]?.bytes ?? NaN;
  });

const rss = (usage: Usage | undefined) => Math.round(usage?.peakRssMb ?? NaN);
const difference = (after: number | null, before: number | null) =>
  after === null || before === null ? null : after - before;

/** @returns when the last event was committed, in milliseconds since 1970 */
async function run(
  contestant: Contestant,
  producers: readonly Child[],
  workers: readonly Child[],
  events: number,
  order: 'warm up' | 'go',
): Promise<number> {
  const stored = workers.length > 0 ? storedBy(workers, events) : undefined;
  const done = await Promise.all(
    producers.map((producer) => {
      const told = producer.next('done');
      producer.order(order);
      return told;
    }),
  );
  if (stored) return stored;
  const [first] = producers;
  if (!contestant.finish || !first) return Math.max(...done.map(({ at }) => at));
  const finished = first.next('done');
  first.order('finish');
  return (await finished).at;
}

/** @returns when the last of them was committed */
function storedBy(workers: readonly Child[], events: number): Promise<number> {
  let [committed, lastAt] = [0, 0];
  return new Promise((resolve) => {
    for (const worker of workers) {
      worker.onCommitted((more, at) => {
        committed += more;
        lastAt = Math.max(lastAt, at);
        if (committed >= events) resolve(lastAt);
      });
    }
  });
}

async function withDeadline<T>(work: Promise<T>, failed: Promise<never>): Promise<T> {
  const timer = new AbortController();
  const late = sleep(DEADLINE_S * 1000, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`not done after ${DEADLINE_S} s`);
  });
  late.catch(() => {});
  try {
    return await Promise.race([work, failed, late]);
  } finally {
    timer.abort();
  }
}
