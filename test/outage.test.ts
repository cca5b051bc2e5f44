import { setTimeout as sleep } from 'node:timers/promises';

import { Redis } from 'ioredis';
import pg from 'pg';
import pino from 'pino';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';

import { applyMigrations } from '../src/database/migrations.ts';
import type { Producer } from '../src/producers/producer.ts';
import type { QueueLocation } from '../src/queues/backend.ts';
import { EVENT_KINDS } from '../src/queues/events.ts';
import { startWorkers, type Workers } from '../src/workers/runtime.ts';
import { describeRedis, testPrefix } from './support/database.ts';
import { sample } from './support/events.ts';
import { drained, openQueues, seedParents, testConfig, testProducer } from './support/pipeline.ts';
import { startPostgres, startRedis, type TestServer } from './support/servers.ts';

const EVENTS = 2000;

interface Line {
  msg: string;
  attempt?: number;
  queue?: string;
  reason?: string;
}

interface Disturbance {
  begin: () => Promise<unknown>;
  end: () => Promise<unknown>;
  /** Milliseconds in between. */
  lastsMs: number;
}

function describeOutages(kind: QueueLocation['kind'], suite: (bench: Bench) => void) {
  const describeIt = kind === 'redis' ? describeRedis : describe;
  describeIt(`workers with queues on ${kind}`, () => {
    const bench = new Bench(kind);
    beforeAll(() => bench.open());
    afterEach(() => bench.lines.splice(0));
    afterAll(() => bench.close());
    suite(bench);
  });
}

/** Private servers, workers and a producer on them. */
class Bench {
  readonly lines: Line[] = [];
  postgres!: TestServer;
  redis!: TestServer;
  #kind: QueueLocation['kind'];
  #location!: QueueLocation;
  #workers!: Workers;
  #producer!: Producer;
  #queues!: ReturnType<typeof openQueues>;
  #emitted = 0;

  constructor(kind: QueueLocation['kind']) {
    this.#kind = kind;
  }

  async open() {
    // A killed process loses nothing that it wrote; only a power cut would ask for more.
    this.postgres = await startPostgres({ settings: { fsync: 'off', full_page_writes: 'off' } });
    if (this.#kind === 'redis') this.redis = await startRedis();
    await applyMigrations(this.postgres.url);
    await seedParents({ sql: this.sql });
    const { url } = this.#kind === 'redis' ? this.redis : this.postgres;
    this.#location = { kind: this.#kind, url, prefix: testPrefix() };
    await this.startWorkers();
    this.#producer = this.#openProducer();
    this.#queues = openQueues(this.#location);
    for (const kind of EVENT_KINDS) {
      this.#queues[kind].on('error', () => {});
      await this.#queues[kind].waitUntilReady();
    }
  }

  /** Small jobs, so that many are in every state when something happens. */
  #openProducer() {
    return testProducer(this.#location, { env: { ANNALS_PACK_MAX_EVENTS: '20' } });
  }

  async startWorkers() {
    const log = pino({}, { write: (text: string) => void this.lines.push(JSON.parse(text)) });
    const config = testConfig({ ANNALS_JOB_LOCK_MS: '2000', ANNALS_WORKER_CONCURRENCY: '8' });
    const databaseUrl = this.postgres.url;
    this.#workers = await startWorkers({ databaseUrl, queue: this.#location, config, log });
  }

  stopWorkers(deadlineMs: number) {
    return this.#workers.stop(deadlineMs);
  }

  async close() {
    await this.#producer.close();
    await this.#workers.stop(5000);
    await this.#queues.close();
    await this.postgres.stop();
    if (this.#kind === 'redis') await this.redis.stop();
  }

  readonly sql = async <Row extends pg.QueryResultRow>(text: string, params?: unknown[]) => {
    const client = new pg.Client({ connectionString: this.postgres.url });
    client.on('error', () => {});
    await client.connect();
    try {
      return (await client.query<Row>(text, params)).rows;
    } finally {
      await client.end().catch(() => {});
    }
  };

  emit(count: number, producer = this.#producer) {
    for (let n = 0; n < count; n++) {
      const kind = EVENT_KINDS[this.#emitted % EVENT_KINDS.length]!;
      producer.emit(kind, sample(kind, this.#emitted++, 0) as never);
    }
  }

  async rows(): Promise<number> {
    const [row] = await this.sql<{ n: number }>(`SELECT (
      (SELECT count(*) FROM "MemoryAccess") + (SELECT count(*) FROM "StateTransition") +
      (SELECT count(*) FROM "SessionMetric") + (SELECT count(*) FROM "AgentMetric") +
      (SELECT count(*) FROM "SessionEvent"))::int AS n`);
    return row!.n;
  }

  /** Lets something happen while events flow, and checks what users were promised. */
  async outlives({ begin, end, lastsMs }: Disturbance) {
    this.emit(EVENTS / 2);
    await begin();
    this.emit(EVENTS / 4);
    await sleep(lastsMs);
    await end();
    const backAt = performance.now();
    const before = await this.rows();
    // By a producer that knows nothing of the outage: what is measured are the workers.
    const producer = this.#openProducer();
    this.emit(EVENTS / 4, producer);
    await producer.close();
    while ((await this.rows()) === before && before < this.#emitted) await sleep(20);
    expect(performance.now() - backAt, 'milliseconds until rows come again').toBeLessThan(5000);

    await this.flush();
    // Whoever looks at the queues here may have been cut off as well.
    await vi.waitFor(
      () => Promise.all(EVENT_KINDS.map((kind) => this.#queues[kind].count())),
      5000,
    );
    await drained(this.#queues);
    expect(await this.rows()).toBe(this.#emitted);
    const [memories] = await this.sql<{ n: number }>(
      'SELECT sum("accessCount")::int AS n FROM "InteractionMemory"',
    );
    expect(memories!.n).toBe(this.#emitted / EVENT_KINDS.length);
    await this.expectNoAttemptBurned();
  }

  async expectNoAttemptBurned() {
    expect(this.lines.filter(({ attempt }) => attempt !== undefined)).toEqual([]);
    for (const kind of EVENT_KINDS) {
      expect(await this.#queues[kind].getFailedCount()).toBe(0);
      // The attempt that completes a job is the only one that is counted.
      const completed = await this.#queues[kind].getCompleted();
      expect(completed.filter(({ attemptsMade }) => attemptsMade > 1)).toEqual([]);
    }
  }

  /** One line at either end of an outage for each queue and server, and next to nothing else. */
  async expectFewLines(server: string) {
    const messages = () => this.lines.map(({ msg }) => msg);
    // A server has to be quiet for a moment before it counts as back. Each queue says so by itself,
    // and a line that came late would be taken for the next test's.
    await expect
      .poll(messages, { timeout: 10_000 })
      .toContainEqual(expect.stringMatching(/ is back after \d+(\.\d)? s$/));
    const said = (what: string) =>
      messages().filter((msg) => msg.startsWith(`${server} at `) && msg.includes(what)).length;
    const open = () => said(' is away') - said(' is back after ');
    await expect.poll(open, { timeout: 10_000 }).toBeLessThanOrEqual(0);
    expect(messages()).toContainEqual(expect.stringMatching(`^${server} at .* is away`));
    for (const queue of EVENT_KINDS) {
      const ofQueue = this.lines.filter((line) => line.queue === queue);
      const away = ofQueue.filter(({ msg }) => msg.startsWith(`${server} at`) && /away/.test(msg));
      expect(away.length, JSON.stringify(ofQueue)).toBeLessThanOrEqual(
        this.#kind === 'redis' ? 1 : 2,
      );
      expect(ofQueue.length, JSON.stringify(ofQueue)).toBeLessThanOrEqual(6);
    }
  }

  /** The queues are looked into while PostgreSQL is away, where they are elsewhere. */
  async expectHeldJobsUntouched() {
    const held = await this.#queues['memory-access'].getActive();
    expect(held.length).toBeGreaterThan(0);
    expect(held.map(({ attemptsMade }) => attemptsMade)).toEqual(held.map(() => 0));
    expect(await this.#queues['memory-access'].getActiveCount()).toBeGreaterThan(0);
  }

  drained() {
    return drained(this.#queues);
  }

  /** Until the queue has all that was emitted, by way of the spool or not. */
  async flush() {
    await this.#producer.flush();
    while (this.#producer.stats().spooled > 0) await sleep(20);
  }

  activeCount() {
    return this.#queues['memory-access'].getActiveCount();
  }

  get emitted() {
    return this.#emitted;
  }
}

/** What may happen to PostgreSQL, whatever the queues are on. */
function postgresOutages(bench: Bench) {
  it('outlives a killed PostgreSQL', async () => {
    await bench.outlives({
      begin: () => bench.postgres.kill(),
      lastsMs: 1500,
      end: () => bench.postgres.restart(),
    });
    await bench.expectFewLines('PostgreSQL');
  });

  it('outlives a PostgreSQL that hangs', async () => {
    await bench.outlives({
      begin: async () => bench.postgres.pause(),
      lastsMs: 1500,
      end: async () => bench.postgres.resume(),
    });
  });

  it('outlives the crash of a PostgreSQL process, and the recovery after it', async () => {
    await bench.outlives({
      begin: async () => {
        const [own] = await bench.sql<{ pid: number }>(
          "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name LIKE 'annals%' LIMIT 1",
        );
        process.kill(own!.pid, 'SIGKILL');
        await sleep(100);
      },
      lastsMs: 0,
      end: async () => {
        while (
          !(await bench.sql('SELECT').then(
            () => true,
            () => false,
          ))
        )
          await sleep(20);
      },
    });
  });

  it('outlives the loss of every connection to PostgreSQL', async () => {
    const cut = () =>
      bench.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
      );
    await bench.outlives({ begin: cut, lastsMs: 100, end: cut });
  });
}

describeOutages('redis', (bench) => {
  postgresOutages(bench);

  it('holds its jobs as they are while PostgreSQL is away', async () => {
    await bench.postgres.kill();
    bench.emit(EVENTS);
    await bench.flush();
    while ((await bench.activeCount()) === 0) await sleep(20);
    await bench.expectHeldJobsUntouched();
    await bench.postgres.restart();
    await bench.drained();
    await bench.expectNoAttemptBurned();
  });

  it('outlives a killed Redis that reads its append-only file', async () => {
    await bench.outlives({
      begin: () => bench.redis.kill(),
      lastsMs: 1500,
      end: () => bench.redis.restart(),
    });
    await bench.expectFewLines('Redis');
  });

  it('does not say that a Redis is away which has been back for long', async () => {
    await bench.redis.kill();
    await sleep(500);
    await bench.redis.restart();
    await bench.expectFewLines('Redis');
    bench.lines.splice(0);
    await sleep(20_000); // longer than a connection may be silent, by the timers of the old ones
    expect(bench.lines).toEqual([]);
  }, 60_000);

  it('outlives a Redis that hangs', async () => {
    await bench.outlives({
      begin: async () => bench.redis.pause(),
      lastsMs: 1500,
      end: async () => bench.redis.resume(),
    });
  });

  const redis = async <T>(ask: (client: Redis) => Promise<T>): Promise<T> => {
    const client = new Redis(bench.redis.url);
    try {
      return await ask(client);
    } finally {
      client.disconnect();
    }
  };

  it('outlives the loss of every connection to Redis', async () => {
    const cut = () => redis((client) => client.call('CLIENT', 'KILL', 'TYPE', 'normal'));
    await bench.outlives({ begin: cut, lastsMs: 100, end: cut });
  });

  it('outlives a Redis that is a read-only replica for a while', async () => {
    await bench.outlives({
      begin: () => redis((client) => client.call('REPLICAOF', '127.0.0.1', '1')),
      lastsMs: 1000,
      end: () => redis((client) => client.call('REPLICAOF', 'NO', 'ONE')),
    });
  });

  it('goes on with a Redis that has forgotten everything', async () => {
    bench.emit(EVENTS);
    await bench.flush();
    await redis((client) => client.flushall());
    const before = await bench.rows();
    bench.emit(EVENTS);
    const startedAt = performance.now();
    await bench.flush();
    while ((await bench.rows()) < before + EVENTS / 2) await sleep(20);
    expect(performance.now() - startedAt).toBeLessThan(10_000);
    expect(bench.lines.length).toBeLessThanOrEqual(20);
    await bench.drained();
  });

  it('hands its jobs to the next worker when it stops while PostgreSQL is away', async () => {
    const before = await bench.rows();
    await bench.postgres.kill();
    bench.emit(EVENTS);
    await bench.flush();
    while ((await bench.activeCount()) === 0) await sleep(20);
    const stoppedAt = performance.now();
    await bench.stopWorkers(1000);
    expect(performance.now() - stoppedAt).toBeLessThan(2000);
    expect(await bench.activeCount()).toBe(0);
    await bench.postgres.restart();
    await bench.startWorkers();
    await bench.drained();
    expect(await bench.rows()).toBe(before + EVENTS);
  });
});

describeOutages('postgres', (bench) => {
  postgresOutages(bench);
});
