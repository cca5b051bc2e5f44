import type { Job, Queue } from 'bullmq';
import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, expect, it, onTestFinished } from 'vitest';

import {
  openProducerQueue,
  openQueue,
  openWorker,
  prepareQueues,
  type EventWorker,
  type JobResult,
  type QueueLocation,
} from '../src/queues/backend.ts';
import { openText, packEnvelope } from '../src/queues/envelope.ts';
import { EVENT_KINDS } from '../src/queues/events.ts';
import { createEmptyDatabase, type EmptyDatabase } from './support/emptyDatabase.ts';
import { encodedSample } from './support/events.ts';

let db: EmptyDatabase;
let location: QueueLocation;
const kind = 'metrics';

beforeAll(async () => {
  db = await createEmptyDatabase();
  location = { kind: 'postgres', url: db.url, prefix: 'jobs' };
});
afterAll(() => db.drop());
beforeEach(async () => {
  await db.sql('DROP SCHEMA IF EXISTS jobs CASCADE');
  await prepareQueues(location);
});

async function add(texts: string[]): Promise<Job[]> {
  const queue = openProducerQueue(location, kind);
  try {
    const jobs: Job[] = [];
    for (const data of texts) jobs.push(await queue.add(kind, data));
    return jobs;
  } finally {
    await queue.close();
  }
}

/** A connection that holds no rows after the test, even if the test failed. */
async function connect(): Promise<pg.Client> {
  const client = await db.connect();
  onTestFinished(() => client.end());
  return client;
}

const numbered = (count: number) =>
  Array.from({ length: count }, (_, n) => `{"v":1,"events":[${n}]}`);

/** A worker that holds the jobs it is given until so many are there, and lets go of all at once. */
function hold(
  count: number,
  onHeld: (jobs: Job[]) => Promise<unknown> = async () => {},
  finish: () => JobResult = () => ({ committed: 1 }),
) {
  const held: Job[] = [];
  const errors: string[] = [];
  const completed: string[] = [];
  let release: () => void;
  const released = new Promise<void>((resolve) => (release = resolve));
  const worker: EventWorker = openWorker(
    location,
    kind,
    async (job) => {
      held.push(job);
      if (held.length === count) void onHeld(held).then(release);
      await released;
      return finish();
    },
    // BullMQ locks jobs to look for stalled ones, twice within this time: not within a test.
    { concurrency: count, lockDuration: 600_000 },
  );
  worker.on('error', (error) => errors.push(error.message));
  worker.on('completed', ({ id }) => completed.push(id!));
  // That of a test that failed would take jobs from the next one.
  onTestFinished(() => void worker.close(true));
  return { worker, held, errors, completed };
}

it('takes jobs in their order, and makes no temporary tables for them', async () => {
  const added = await add(numbered(11));
  const queue = openQueue(location, kind);
  const waiting = await queue.getWaiting();
  expect(waiting.map(({ data }) => data.events)).toEqual(Array.from({ length: 11 }, (_, n) => [n]));
  expect(waiting.map(({ id }) => id)).toEqual(added.map(({ id }) => id));
  await queue.close();
  expect(await db.sql(`SELECT 1 FROM pg_namespace WHERE nspname LIKE 'pg_temp%'`)).toEqual([]);
});

it('jobs wait compressed with LZ4 where PostgreSQL has it', async () => {
  await add([packEnvelope(Array.from({ length: 500 }, (_, n) => encodedSample(kind, n)))]);
  const [{ offered }] = await db.sql(
    `SELECT 'lz4' = ANY (enumvals) AS offered FROM pg_settings WHERE name = 'default_toast_compression'`,
  );
  expect(await db.sql(`SELECT pg_column_compression(data) AS method FROM jobs.job`)).toEqual([
    { method: offered ? 'lz4' : 'pglz' },
  ]);
});

it('completes the jobs of a batch in one transaction, hands out as many, and keeps ten', async () => {
  await add(numbered(24));
  const { worker, held, errors, completed } = hold(12);
  await expect.poll(() => completed.length, { timeout: 20_000 }).toBe(24);
  await worker.close();
  expect(held.map(({ data }) => data.events[0]).toSorted((a, b) => a - b)).toEqual(
    Array.from({ length: 24 }, (_, n) => n),
  );
  expect(errors).toEqual([]);
  const kept = await db.sql(
    `SELECT count(*)::int AS jobs, count(DISTINCT xmin::text)::int AS transactions,
       bool_and(return_value = '{"committed": 1}') AS told FROM jobs.job`,
  );
  expect(kept).toEqual([{ jobs: 10, transactions: expect.any(Number), told: true }]);
  expect(kept[0].transactions).toBeLessThan(10);
});

it("completes the others in one transaction where some are gone or are no longer the worker's", async () => {
  const [gone, lost, ...others] = await add(numbered(8));
  const { worker, errors, completed } = hold(8, async () => {
    await db.sql('DELETE FROM jobs.job WHERE id = $1', [gone!.id]);
    await db.sql(`UPDATE jobs.job SET lock_token = 'another' WHERE id = $1`, [lost!.id]);
  });
  await expect.poll(() => completed.length, { timeout: 20_000 }).toBe(6);
  expect(new Set(completed)).toEqual(new Set(others.map(({ id }) => id)));
  // BullMQ tries to fail what it could not complete, and says so twice, unless it is closing by then.
  await expect.poll(() => new Set(errors).size, { timeout: 20_000 }).toBe(2);
  await worker.close();
  expect(new Set(errors)).toEqual(
    new Set([
      `Missing key for job ${gone!.id}. moveToFinished`,
      `Lock mismatch for job ${lost!.id}. Cmd moveToFinished from active`,
    ]),
  );
  const transactions = await db.sql(
    `SELECT count(DISTINCT xmin::text)::int AS count FROM jobs.job WHERE state = 'completed'`,
  );
  expect(transactions).toEqual([{ count: 1 }]);
});

it('completes the others and those that follow while somebody has the row of one, and that one afterwards', async () => {
  const [first, ...others] = await add(numbered(12));
  const holder = await connect();
  const { worker, errors, completed } = hold(6, async () => {
    await holder.query('BEGIN');
    await holder.query('UPDATE jobs.job SET stalled_marked = true WHERE id = $1', [first!.id]);
  });
  await expect.poll(() => completed.length, { timeout: 20_000 }).toBe(11);
  expect(new Set(completed)).toEqual(new Set(others.map(({ id }) => id)));
  await holder.query('COMMIT');
  await expect.poll(() => completed.length, { timeout: 20_000 }).toBe(12);
  await worker.close();
  expect(errors).toEqual([]);
});

it('completes jobs while somebody has the rows of those that are completed, which are removed later', async () => {
  await add(numbered(24));
  const holder = await connect();
  let held: Promise<unknown> | undefined;
  const { worker, errors, completed } = hold(8);
  // As one has them that waited for jobs which were completed meanwhile: it goes on to others.
  worker.on('completed', () => {
    held ??= holder
      .query('BEGIN')
      .then(() => holder.query(`SELECT FROM jobs.job WHERE state = 'completed' FOR UPDATE`));
  });
  await expect.poll(() => completed.length, { timeout: 20_000 }).toBe(24);
  await held;
  await holder.query('COMMIT');

  await add(numbered(1));
  await expect.poll(() => completed.length, { timeout: 20_000 }).toBe(25);
  await worker.close();
  expect(errors).toEqual([]);
  const kept = await db.sql(`SELECT count(*)::int AS jobs, max(seq::int) AS newest FROM jobs.job`);
  expect(kept).toEqual([{ jobs: 10, newest: 25 }]);
});

it('completes the last job of a worker that stops, while somebody has the rows of completed ones', async () => {
  await add(numbered(12));
  const first = hold(12);
  await expect.poll(() => first.completed.length, { timeout: 20_000 }).toBe(12);
  await first.worker.close();
  const holder = await connect();
  await holder.query('BEGIN');
  await holder.query('SELECT FROM jobs.job FOR UPDATE');

  await add(numbered(1));
  let closing: Promise<void> | undefined;
  const last = hold(1, async () => {
    closing = last.worker.close();
  });
  await expect.poll(() => last.completed.length, { timeout: 10_000 }).toBe(1);
  await closing;
  await holder.query('COMMIT');
  expect(last.errors).toEqual([]);
});

it('looks for jobs and completes them by one statement at a time', async () => {
  await db.sql(`CREATE FUNCTION jobs.linger() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$`);
  await db.sql(`CREATE TRIGGER linger BEFORE UPDATE ON jobs.job FOR EACH ROW
    EXECUTE FUNCTION jobs.linger()`);
  const { worker, errors, completed } = hold(1);
  worker.concurrency = 16; // jobs that come while others are completed are looked for at once
  const underWay: number[] = [];
  const watch = async () => {
    while (completed.length < 24) {
      const [row] = await db.sql(`SELECT count(*)::int AS statements FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'annals worker'
          AND state = 'active' AND query ~ 'move_to_(active|completed_fetch)'`);
      underWay.push(row.statements);
    }
  };
  const comeOneByOne = async () => {
    for (const one of numbered(24)) await add([one]);
  };
  await Promise.all([watch(), comeOneByOne()]);
  await worker.close();
  expect(errors).toEqual([]);
  expect(Math.max(...underWay)).toBe(1);
});

it('completes one by one where PostgreSQL has no time for all at once', async () => {
  await add(numbered(12));
  await db.sql(`CREATE FUNCTION jobs.rest() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END $$`);
  await db.sql(`CREATE TRIGGER rest BEFORE UPDATE ON jobs.job FOR EACH ROW
    WHEN (NEW.state = 'completed') EXECUTE FUNCTION jobs.rest()`);
  const database = `"${new URL(db.url).pathname.slice(1)}"`;
  await db.sql(`ALTER DATABASE ${database} SET statement_timeout = 800`);
  try {
    const { worker, errors, completed } = hold(8);
    await expect.poll(() => completed.length, { timeout: 20_000 }).toBe(12);
    const kept = () => db.sql(`SELECT FROM jobs.job`);
    await expect.poll(kept, { timeout: 20_000 }).toHaveLength(10);
    await worker.close();
    expect(errors).toEqual([]);
  } finally {
    await db.sql(`ALTER DATABASE ${database} RESET statement_timeout`);
  }
});

it('does not meet those who mark or extend many jobs in a deadlock', async () => {
  await add(numbered(2000));
  const { worker, errors, completed } = hold(1);
  worker.concurrency = 16;
  // The worker itself marks jobs when it starts, in another order than this test.
  const marked = () => db.sql(`SELECT 1 FROM jobs.meta WHERE field = 'stalled-check'`);
  await expect.poll(marked).toHaveLength(1);
  while (completed.length < 2000) {
    await db.sql(`UPDATE jobs.job SET stalled_marked = NOT stalled_marked
      WHERE seq IN (SELECT seq FROM jobs.job WHERE state = 'active' ORDER BY seq DESC FOR UPDATE)`);
  }
  await worker.close();
  expect(errors).toEqual([]);
});

it('hands a worker the data of a job as it is stored', async () => {
  const events = [
    '{"number":1e400,"text":"a \\"quoted\\" \\\\ \\u0001 \u{1F642}","none":null}',
    `${'['.repeat(3000)}1${']'.repeat(3000)}`,
  ];
  await add(events.map((event) => `{"v":1,"events":[${event}]}`));
  const { worker, held, errors } = hold(2);
  await expect.poll(() => held.length, { timeout: 20_000 }).toBe(2);
  await worker.close();
  const [first, second] = held;
  expect(first!.data).toEqual({
    v: 1,
    events: [{ number: Infinity, text: 'a "quoted" \\ \u0001 \u{1F642}', none: null }],
  });
  // What is nested too deeply to be written again is text from some depth on.
  const [opened] = /\[+/.exec(JSON.stringify(second!.data))!;
  expect(opened.length).toBeLessThan(1000);
  expect(errors).toEqual([]);
});

it("takes the events' JSON out of a producer's job as PostgreSQL prints it", async () => {
  const samples = [1, 2].map((n) => encodedSample(kind, n));
  const ledger = { id: '0190f3b0-0000-7000-8000-000000000001', accepted: 12, dropped: 3 };
  for (const envelope of [packEnvelope(samples, ledger), packEnvelope(samples)]) {
    const [{ text }] = await db.sql('SELECT $1::jsonb::text AS text', [envelope]);
    const [{ printed }] = await db.sql(
      `SELECT string_agg(event::text, ', ' ORDER BY place) AS printed
       FROM jsonb_array_elements($1::jsonb -> 'events') WITH ORDINALITY AS e (event, place)`,
      [envelope],
    );
    const { valid } = openText(kind, text)!;
    expect(valid.json(0, valid.length)).toBe(printed);
  }
});

it('hands out a job whatever its options are', async () => {
  await add(numbered(2));
  await db.sql(`UPDATE jobs.job SET opts = CASE id WHEN '1' THEN '7'::jsonb ELSE 'null' END`);
  const { worker, errors, completed } = hold(2);
  await expect.poll(() => completed.length, { timeout: 20_000 }).toBe(2);
  await worker.close();
  expect(errors).toEqual([]);
});

it('shares the connections of its queues within a process, and those of its workers', async () => {
  const queues = EVENT_KINDS.map((each) => openProducerQueue(location, each));
  let completed = 0;
  const errors: string[] = [];
  const workers = EVENT_KINDS.map((each) => {
    const worker = openWorker(location, each, async () => ({ committed: 1 }), { concurrency: 16 });
    worker.on('completed', () => completed++);
    worker.on('error', ({ message }) => errors.push(message));
    return worker;
  });
  const addTo = (queue: Queue<string>, jobs: number) =>
    Promise.all(numbered(jobs).map((data) => queue.add(queue.name, data)));
  const open = async () =>
    Object.fromEntries(
      (
        await db.sql(`SELECT application_name AS name, count(*)::int FROM pg_stat_activity
          WHERE datname = current_database()
            AND application_name IN ('annals producer', 'annals worker') GROUP BY 1`)
      ).map(({ name, count }) => [name, count]),
    );

  await Promise.all(queues.flatMap((queue) => Array.from({ length: 10 }, () => addTo(queue, 4))));
  await expect.poll(() => completed, { timeout: 20_000 }).toBe(160);
  const { 'annals producer': producer, 'annals worker': worker } = await open();
  expect(producer).toBeGreaterThan(0);
  expect(producer).toBeLessThanOrEqual(6);
  expect(worker).toBeGreaterThan(0);
  expect(worker).toBeLessThanOrEqual(12);

  // Whoever leaves takes nothing from those that stay; the last one closes all.
  await Promise.all([queues[0]!.close(), workers[1]!.close()]);
  await addTo(queues[2]!, 1);
  await expect.poll(() => completed, { timeout: 20_000 }).toBe(161);
  await Promise.all([...queues, ...workers].map((each) => each.close()));
  await expect.poll(open).toEqual({});
  expect(errors).toEqual([]);
});

it('goes on with another queue while the failures of one wait for rows that somebody has', async () => {
  await add(numbered(16));
  const holder = await connect();
  const stuck = hold(
    16,
    async () => {
      await holder.query('BEGIN');
      await holder.query('SELECT FROM jobs.job FOR UPDATE');
    },
    () => {
      throw new Error('on purpose');
    },
  );
  const failed = () => db.sql(`SELECT count(*)::int FROM jobs.job WHERE state = 'failed'`);
  const waiting = () =>
    db.sql(`SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'
      AND datname = current_database() AND application_name = 'annals worker'`);
  await expect.poll(waiting).not.toEqual([]);

  let completed = 0;
  const another = openWorker(location, 'transition', async () => ({ committed: 1 }), {
    concurrency: 4,
  });
  another.on('error', (error) => stuck.errors.push(error.message));
  another.on('completed', () => completed++);
  const queue = openProducerQueue(location, 'transition');
  await Promise.all(numbered(20).map((data) => queue.add('transition', data)));
  await expect.poll(() => completed, { timeout: 20_000 }).toBe(20);
  expect(await failed()).toEqual([{ count: 0 }]);

  await holder.query('COMMIT');
  await expect.poll(failed, { timeout: 20_000 }).toEqual([{ count: 16 }]);
  await Promise.all([stuck.worker.close(), another.close(), queue.close()]);
  expect(stuck.errors).toEqual([]);
});
