import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { applyMigrations } from '../src/database/migrations.ts';
import { openProducerQueue, prepareQueues, type QueueLocation } from '../src/queues/backend.ts';
import { describeRedis, testPrefix } from './support/database.ts';
import { sample } from './support/events.ts';
import { drained, openQueues, seedParents, testWorkers } from './support/pipeline.ts';
import { spawnTsx } from './support/process.ts';
import { startPostgres, startRedis, type TestServer } from './support/servers.ts';

const DEADLINE_MS = 1500;
const JOBS = 60;
const EVENTS_PER_JOB = 5;

type State = 'up' | 'down' | 'hung';
const STATES: State[] = ['up', 'down', 'hung'];

const query = async <Row extends pg.QueryResultRow>(
  url: string,
  text: string,
  params?: unknown[],
) => {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Row>(text, params)).rows;
  } finally {
    await client.end();
  }
};

async function startDatabase(): Promise<TestServer> {
  const server = await startPostgres({ settings: { fsync: 'off', full_page_writes: 'off' } });
  await applyMigrations(server.url);
  await seedParents({ sql: (text, params) => query(server.url, text, params) });
  return server;
}

/** Starts the worker that a user starts; `output` is what it has said so far. */
function startWorker(databaseUrl: string, queue: QueueLocation, env: Record<string, string> = {}) {
  const child = spawnTsx('src/cli/main.ts', ['worker'], {
    DATABASE_URL: databaseUrl,
    REDIS_URL: queue.kind === 'redis' ? queue.url : undefined,
    ANNALS_QUEUE_BACKEND: queue.kind,
    ANNALS_QUEUE_PREFIX: queue.prefix,
    ANNALS_SHUTDOWN_DEADLINE_MS: String(DEADLINE_MS),
    ANNALS_JOB_LOCK_MS: '2000',
    ANNALS_WORKER_CONCURRENCY: '8',
    ANNALS_LOG_FORMAT: 'json',
    ANNALS_LOG_LEVEL: 'info',
    ...env,
  });
  const worker = { child, output: '', exited: exitOf(child) };
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (worker.output += text));
  }
  return worker;
}

async function exitOf(child: ChildProcess): Promise<number | null> {
  const [code] = (await once(child, 'exit')) as [number | null];
  return code;
}

/** Milliseconds in which what a test waits for has to be there: it is to say what was not. */
const PATIENCE_MS = 60_000;

async function until(what: () => string, isThere: () => boolean | Promise<boolean>): Promise<void> {
  const giveUpAt = performance.now() + PATIENCE_MS;
  while (!(await isThere())) {
    if (performance.now() > giveUpAt) throw new Error(`not within ${PATIENCE_MS} ms: ${what()}`);
    await sleep(20);
  }
}

/** Sends SIGTERM; `tookMs` is how long it took to end. One that does not is killed, which its code tells. */
async function stopTime({
  child,
  exited,
}: {
  child: ChildProcess;
  exited: Promise<number | null>;
}) {
  const stoppedAt = performance.now();
  child.kill('SIGTERM');
  const killer = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS);
  const code = await exited;
  clearTimeout(killer);
  return { code, tookMs: performance.now() - stoppedAt };
}

/** A process that takes exactly the deadline to stop, as far as this machine's load lets anything. */
async function startClock() {
  const program = `process.on('SIGTERM', () => setTimeout(() => process.exit(0), ${DEADLINE_MS}));
    setTimeout(() => {}, 600000); console.log('ready');`;
  const child = spawn(process.execPath, ['-e', program]);
  await once(child.stdout, 'data');
  return { child, exited: exitOf(child) };
}

async function says(worker: { output: string; child: ChildProcess }, text: string | RegExp) {
  await until(
    () => `${text} in: ${worker.output}`,
    () => {
      if (worker.child.exitCode !== null) throw new Error(`it ended: ${worker.output}`);
      return typeof text === 'string' ? worker.output.includes(text) : text.test(worker.output);
    },
  );
}

/** Puts right events on a queue, of numbers that no other place has. */
async function fill(location: QueueLocation, first: number): Promise<void> {
  const queue = openProducerQueue(location, 'memory-access');
  await queue.waitUntilReady();
  const jobs = Array.from({ length: JOBS }, (_, job) => ({
    name: 'memory-access',
    data: JSON.stringify({
      v: 1,
      events: Array.from({ length: EVENTS_PER_JOB }, (__, n) =>
        sample('memory-access', first + job * EVENTS_PER_JOB + n, 0),
      ),
    }),
  }));
  await queue.addBulk(jobs);
  await queue.close();
}

async function bring(server: TestServer, state: State): Promise<void> {
  if (state === 'down') await server.kill();
  if (state === 'hung') server.pause();
}

async function restore(server: TestServer, state: State): Promise<void> {
  if (state === 'down') await server.restart();
  if (state === 'hung') server.resume();
}

describeRedis('SIGTERM to a worker', () => {
  const databases = {} as Record<State, TestServer>;
  const redises = {} as Record<State, TestServer>;
  const places: { name: string; redis?: State; postgres: State; queue: QueueLocation }[] = [];

  beforeAll(async () => {
    for (const state of STATES) {
      [databases[state], redises[state]] = await Promise.all([startDatabase(), startRedis()]);
    }
    for (const postgres of STATES) {
      for (const redis of STATES) {
        const queue = { kind: 'redis' as const, url: redises[redis].url, prefix: testPrefix() };
        places.push({ name: `Redis ${redis}, PostgreSQL ${postgres}`, redis, postgres, queue });
      }
      const queue = {
        kind: 'postgres' as const,
        url: databases[postgres].url,
        prefix: testPrefix(),
      };
      places.push({ name: `queues on PostgreSQL, which is ${postgres}`, postgres, queue });
    }
  }, 120_000);

  afterAll(async () => {
    await Promise.all(
      [...Object.values(databases), ...Object.values(redises)].map((s) => s.stop()),
    );
  });

  it(
    'ends it within its deadline and a second, whatever is up, down or hung',
    { timeout: 300_000 },
    async () => {
      const workers: ReturnType<typeof startWorker>[] = [];
      for (const { postgres, queue } of places) {
        const worker = startWorker(databases[postgres].url, queue);
        workers.push(worker);
        // Two at a time, as many as there are cores.
        if (workers.length % 2 === 0) await says(worker, 'Writing memory-access');
      }
      await Promise.all(workers.map((worker) => says(worker, 'Writing memory-access')));

      const onPostgres = places.filter(({ queue }) => queue.kind === 'postgres');
      await Promise.all(
        onPostgres.map(({ queue }) =>
          fill(queue, places.findIndex((p) => p.queue === queue) * 1000),
        ),
      );
      await Promise.all(STATES.map((state) => bring(databases[state], state)));
      // Those whose PostgreSQL is away take jobs, and have to hold them.
      await Promise.all(
        places.map(async ({ name, queue, postgres }, index) => {
          if (queue.kind === 'postgres') return;
          await fill(queue, index * 1000);
          if (postgres === 'up') return;
          const queues = openQueues(queue);
          await until(
            () => `a job that is active: ${name}: ${workers[index]?.output}`,
            async () => (await queues['memory-access'].getActiveCount()) > 0,
          );
          await queues.close();
        }),
      );
      await Promise.all(STATES.map((state) => bring(redises[state], state)));

      // Few at a time: that they share two cores is not what is measured.
      for (let first = 0; first < workers.length; first += 3) {
        const wave = workers.slice(first, first + 3);
        const allowedMs = stopTime(await startClock()).then(({ tookMs }) => tookMs + 1000);
        const ends = await Promise.all(wave.map(stopTime));
        for (const [index, { code, tookMs }] of ends.entries()) {
          // 1 is the code of a worker that had to be ended at its deadline and a second.
          expect(code, places[first + index]!.name).toBe(0);
          expect(tookMs, places[first + index]!.name).toBeLessThan(await allowedMs);
        }
      }

      for (const state of STATES) {
        await Promise.all([restore(databases[state], state), restore(redises[state], state)]);
      }
      for (const { postgres, queue } of places) {
        const next = await testWorkers(databases[postgres], queue, { ANNALS_JOB_LOCK_MS: '2000' });
        const queues = openQueues(queue);
        await drained(queues);
        expect(await queues['memory-access'].getFailedCount()).toBe(0);
        await Promise.all([next.stop(5000), queues.close()]);
      }
      for (const state of STATES) {
        const [row] = await query<{ rows: number; counted: number }>(
          databases[state].url,
          `SELECT (SELECT count(*)::int FROM "MemoryAccess") AS rows,
          (SELECT sum("accessCount")::int FROM "InteractionMemory") AS counted`,
        );
        const events = 4 * JOBS * EVENTS_PER_JOB;
        expect(row, state).toEqual({ rows: events, counted: events });
      }
    },
  );

  it('ends it at once the second time', async () => {
    const queue: QueueLocation = { kind: 'redis', url: redises.up.url, prefix: testPrefix() };
    const worker = startWorker(databases.up.url, queue, { ANNALS_SHUTDOWN_DEADLINE_MS: '60000' });
    await says(worker, 'Writing memory-access');
    redises.up.pause();
    worker.child.kill('SIGTERM');
    await says(worker, 'a second signal ends at once');
    const stoppedAt = performance.now();
    worker.child.kill('SIGTERM');
    expect(await worker.exited).toBe(143);
    expect(performance.now() - stoppedAt).toBeLessThan(5000);
    redises.up.resume();
  });
});

describe('a worker whose servers are away at the start', () => {
  let postgres: TestServer;
  let redis: TestServer | undefined;

  beforeAll(async () => {
    postgres = await startDatabase();
    redis = await startRedis().catch(() => undefined);
  });
  afterAll(async () => {
    await postgres.stop();
    await redis?.stop();
  });

  it.for(['redis', 'postgres'] as const)(
    'waits for them, with queues on %s',
    async (kind, { skip }) => {
      if (kind === 'redis' && !redis) skip();
      const servers = kind === 'redis' ? [postgres, redis!] : [postgres];
      const url = servers.at(-1)!.url;
      const queue: QueueLocation = { kind, url, prefix: testPrefix() };
      if (kind === 'postgres') await prepareQueues(queue);
      await fill(queue, kind === 'redis' ? 0 : 1000);
      const before = await query<{ n: number }>(
        postgres.url,
        'SELECT count(*)::int AS n FROM "MemoryAccess"',
      );
      for (const server of servers) await server.kill();
      const worker = startWorker(postgres.url, queue);
      for (const [index, server] of servers.entries()) {
        const away =
          index === 0
            ? /PostgreSQL at \S+ is away; waiting for it/
            : /Redis at \S+ is away; waiting for it/;
        await says(worker, away);
        await sleep(500);
        expect(worker.output.match(/is away/g)).toHaveLength(index + 1);
        await server.restart();
      }
      await says(worker, 'Writing memory-access');
      const rows = async () =>
        (
          await query<{ n: number }>(postgres.url, 'SELECT count(*)::int AS n FROM "MemoryAccess"')
        )[0]!.n;
      const wanted = before[0]!.n + JOBS * EVENTS_PER_JOB;
      await until(
        () => `${wanted} rows: ${worker.output}`,
        async () => (await rows()) >= wanted,
      );
      worker.child.kill('SIGTERM');
      expect(await worker.exited).toBe(0);
    },
  );

  it('is ended by the first signal while it waits', async () => {
    const worker = startWorker('postgresql://localhost:1/x', {
      kind: 'postgres',
      url: '',
      prefix: 'x',
    });
    await says(worker, 'PostgreSQL at localhost:1/x is away');
    worker.child.kill('SIGTERM');
    expect(await worker.exited).toBe(143);
  });

  it.each([
    ['a wrong password', (url: URL) => (url.password = 'wrong'), 'password authentication failed'],
    [
      'an unknown database',
      (url: URL) => (url.pathname = 'nowhere'),
      'database "nowhere" does not exist',
    ],
  ])('does not wait for %s to become right', async (_, change, message) => {
    const url = new URL(postgres.url);
    change(url);
    const worker = startWorker(url.href, { kind: 'postgres', url: '', prefix: 'x' });
    expect(await worker.exited).toBe(2);
    expect(worker.output).toContain(message);
    expect(worker.output).toContain('Is DATABASE_URL right?');
    expect(worker.output).not.toMatch(/Is it running|waiting|wrong@/);
  });
});
