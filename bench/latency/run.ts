import { setTimeout as sleep } from 'node:timers/promises';

import { loadConfig } from '../../src/config.ts';
import type { EventTable } from '../../src/demo/ledger.ts';
import { createProducer } from '../../src/producers/producer.ts';
import { withClient } from '../backfill/data.ts';
import { CONTESTANTS, type ContestantName } from '../contestants/index.ts';
import { locate } from '../contestants/annals.ts';
import { resetTables } from '../ingest/database.ts';
import { describeGround, openGround, type Ground } from '../ingest/ground.ts';
import { eventsOf, type Load } from '../ingest/load.ts';
import { Child } from '../ingest/process.ts';
import { TABLES } from '../ingest/rows.ts';
import { median, quantile, round1 } from '../statistics.ts';

export interface LatencyOptions {
  /** Events a second. */
  rates: readonly number[];
  rounds: number;
  /** That are measured, after `SETTLE_S` that are not. */
  seconds: number;
}

/** From a call of `emit` until another session's `SELECT` has the row. */
export interface Latency {
  name: string;
  /** Wanted, and reached. */
  rate: number;
  eventsPerSecond: number;
  /** Events that were looked for, over all rounds. */
  samples: number;
  /** Medians of the rounds, and the greatest of all. */
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
  /** Whether every event of every round became a row. */
  verified: boolean;
  failures: string[];
}

type LatencyName = 'annals-redis' | 'annals-postgres';

/** Seconds at the beginning of a turn in which connections open and code is compiled. */
const SETTLE_S = 2;

/** Events a second that are looked for at most; looking is not to be the load. */
const MAX_SAMPLES_PER_SECOND = 200;

/** Milliseconds between two looks, by which figures may be too great. */
const LOOK_EVERY_MS = 1;

/** Seconds that rows get to appear when all is emitted. */
const DEADLINE_S = 60;

/** Measures at steady rates how long it takes until an event can be seen in SQL. */
export async function latency({ rates, rounds, seconds }: LatencyOptions) {
  const ground = await openGround();
  try {
    const settings = await describeGround(ground);
    console.log(JSON.stringify(settings, null, 2));
    const names: LatencyName[] = ground.redis
      ? ['annals-redis', 'annals-postgres']
      : ['annals-postgres'];
    const entries = names.flatMap((name) =>
      rates.map((rate) => ({ name, rate, turns: [] as (Turn | Error)[] })),
    );
    for (let round = 1; round <= rounds; round++) {
      for (const { name, rate, turns } of entries) {
        const turn = await takeTurn(ground, name, rate, seconds).catch((error: unknown) =>
          error instanceof Error ? error : new Error(String(error)),
        );
        console.log(`round ${round}: ${name} at ${rate}/s: ${summaryOf(turn)}`);
        turns.push(turn);
      }
    }
    const contestants = entries.map(({ name, rate, turns }) => reportOf(name, rate, turns));
    return { contestants, rounds, seconds, ground: settings };
  } finally {
    await ground.close();
  }
}

interface Turn {
  emitted: number;
  stored: number;
  /** Events a second, as it came out. */
  rate: number;
  /** Milliseconds, in order. */
  latencies: Float64Array;
}

async function takeTurn(
  ground: Ground,
  name: LatencyName,
  rate: number,
  seconds: number,
): Promise<Turn> {
  const { place } = ground;
  const load: Load = { events: 2 * rate * (seconds + SETTLE_S), memories: 10_000 };
  await ground.redis?.flushall();
  await resetTables(place.databaseUrl, load);
  await CONTESTANTS[name].prepare?.(place);
  const task = { contestant: name, producer: 0, load, place };
  const worker = new Child('worker', { ...task, role: 'worker' });
  try {
    await worker.next('ready');
    worker.order('go');
    const watch = new Watch(place.databaseUrl);
    const watching = watch.run();
    const { emitted, rate: reached } = await emitSteadily({ ground, name, load, rate, watch });
    await Promise.race([watch.drained(), worker.ended]);
    watch.stop();
    await watching;
    await worker.stop();
    const stored = await countRows(place.databaseUrl);
    return { emitted, stored, rate: reached, latencies: Float64Array.from(watch.found).sort() };
  } finally {
    worker.kill();
  }
}

/** Emits the load's events a millisecond's worth at a time, and tells some of them to the watch. */
async function emitSteadily(options: {
  ground: Ground;
  name: LatencyName;
  load: Load;
  rate: number;
  watch: Watch;
}) {
  const { ground, name, load, rate, watch } = options;
  const producer = createProducer({
    queue: locate(name === 'annals-redis' ? 'redis' : 'postgres', ground.place),
    config: loadConfig({}),
    spoolFolder: `${ground.place.folder}/spool-latency`,
  });
  const every = Math.max(1, Math.round(rate / MAX_SAMPLES_PER_SECOND));
  const startedAt = performance.now();
  let emitted = 0;
  for (const { kind, event } of eventsOf(0, load)) {
    // The n-th is due after n periods; who comes late catches up.
    for (;;) {
      const waitMs = (emitted / rate) * 1000 - (performance.now() - startedAt);
      if (waitMs <= 0) break;
      await sleep(Math.max(1, waitMs));
    }
    const { id: _, occurredAt: __, ...rest } = event;
    const at = performance.now();
    const id = producer.emit(kind, rest);
    emitted++;
    if (at - startedAt >= SETTLE_S * 1000 && emitted % every === 0) watch.expect(id, at);
  }
  const elapsed = (performance.now() - startedAt) / 1000;
  await producer.close();
  return { emitted, rate: emitted / elapsed };
}

/** A session that looks for rows, as any user of the database would. */
class Watch {
  /** Milliseconds of the events that were found. */
  readonly found: number[] = [];
  readonly #databaseUrl: string;
  readonly #expected = new Map<string, number>();
  #isStopped = false;

  constructor(databaseUrl: string) {
    this.#databaseUrl = databaseUrl;
  }

  /** @param at - `performance.now()` before it was emitted */
  expect(id: string, at: number): void {
    this.#expected.set(id, at);
  }

  async run(): Promise<void> {
    const look = TABLES.map(
      (table) => `SELECT "id"::text FROM "${table}" WHERE "id" = ANY ($1::uuid[])`,
    ).join(' UNION ALL ');
    await withClient(this.#databaseUrl, async (client) => {
      while (!this.#isStopped) {
        await sleep(LOOK_EVERY_MS);
        if (this.#expected.size === 0) continue;
        const { rows } = await client.query<{ id: string }>({
          name: 'look',
          text: look,
          values: [[...this.#expected.keys()]],
        });
        const at = performance.now();
        for (const { id } of rows) {
          this.found.push(at - (this.#expected.get(id) ?? NaN));
          this.#expected.delete(id);
        }
      }
    });
  }

  /** Resolves when all that was expected is found, or time is up; the count of rows tells which. */
  async drained(): Promise<void> {
    const giveUpAt = performance.now() + DEADLINE_S * 1000;
    while (this.#expected.size > 0 && performance.now() < giveUpAt) await sleep(10);
  }

  stop(): void {
    this.#isStopped = true;
  }
}

const countRows = (databaseUrl: string): Promise<number> =>
  withClient(databaseUrl, async (client) => {
    const counts = TABLES.map((table: EventTable) => `(SELECT count(*) FROM "${table}")`);
    const { rows } = await client.query<{ n: number }>(`SELECT (${counts.join(' + ')})::int AS n`);
    return rows[0]?.n ?? NaN;
  });

function reportOf(name: ContestantName, rate: number, turns: readonly (Turn | Error)[]): Latency {
  const right = turns.filter((turn): turn is Turn => !(turn instanceof Error));
  const failures = turns.flatMap((turn, n) => {
    if (turn instanceof Error) return [`round ${n + 1}: ${turn.message}`];
    const missing = turn.emitted - turn.stored;
    return missing === 0 ? [] : [`round ${n + 1}: ${missing} of ${turn.emitted} rows are missing`];
  });
  const at = (share: number) =>
    round1(median(right.map((turn) => quantile(turn.latencies, share))));
  return {
    name: `${name}, ${rate.toLocaleString('en')}/s`,
    rate,
    eventsPerSecond: round1(median(right.map((turn) => turn.rate))),
    samples: right.reduce((sum, { latencies }) => sum + latencies.length, 0),
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    maxMs: round1(Math.max(...right.map(({ latencies }) => latencies.at(-1) ?? NaN))),
    verified: right.length > 0 && failures.length === 0,
    failures,
  };
}

function summaryOf(turn: Turn | Error): string {
  if (turn instanceof Error) return `failed: ${turn.message}`;
  const [p50, p99] = [0.5, 0.99].map((share) => quantile(turn.latencies, share).toFixed(1));
  return `${turn.stored} of ${turn.emitted} rows, ${turn.latencies.length} looked for: p50 ${p50} ms, p99 ${p99} ms`;
}
