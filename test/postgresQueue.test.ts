import type { Job } from 'bullmq';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';

import {
  openProducerQueue,
  openQueue,
  openWorker,
  prepareQueues,
  type EventWorker,
  type QueueLocation,
} from '../src/queues/backend.ts';
import { openEnvelope, packEnvelope } from '../src/queues/envelope.ts';
import { textOf } from '../src/queues/steadyWorker.ts';
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
    return await queue.addBulk(texts.map((data) => ({ name: kind, data })));
  } finally {
    await queue.close();
  }
}

const numbered = (count: number) =>
  Array.from({ length: count }, (_, n) => `{"v":1,"events":[${n}]}`);

/** A worker that holds the jobs it is given until so many are there. */
function hold(count: number) {
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
      if (held.length === count) release();
      await released;
      return { committed: 1 };
    },
    { concurrency: count },
  );
  worker.on('error', (error) => errors.push(error.message));
  worker.on('completed', ({ id }) => completed.push(id!));
  return { worker, held, errors, completed };
}

it('takes many jobs at once in their order, and makes no temporary tables for it', async () => {
  const added = await add(numbered(11));
  const queue = openQueue(location, kind);
  const waiting = await queue.getWaiting();
  expect(waiting.map(({ data }) => data.events)).toEqual(Array.from({ length: 11 }, (_, n) => [n]));
  expect(waiting.map(({ id }) => id)).toEqual(added.map(({ id }) => id));
  await queue.close();
  expect(await db.sql(`SELECT 1 FROM pg_namespace WHERE nspname LIKE 'pg_temp%'`)).toEqual([]);
});

it('takes jobs of their own id once, and those that wait for a time or have a rank', async () => {
  const queue = openProducerQueue(location, kind);
  const data = '{}';
  await queue.addBulk([
    { name: kind, data, opts: { jobId: 'one' } },
    { name: kind, data, opts: { jobId: 'one' } },
    { name: kind, data, opts: { delay: 60_000 } },
    { name: kind, data, opts: { priority: 3 } },
    { name: kind, data, opts: { deduplication: { id: 'same' } } },
    { name: kind, data, opts: { deduplication: { id: 'same' } } },
  ]);
  expect(await queue.getJobCounts()).toMatchObject({ waiting: 2, delayed: 1, prioritized: 1 });
  await queue.close();
});

it('hands a worker the data of a job as it is stored, and parsed', async () => {
  const events = [
    '{"number":1e400,"text":"a \\"quoted\\" \\\\ \\u0001 \u{1F642}","none":null}',
    `${'['.repeat(3000)}1${']'.repeat(3000)}`,
  ];
  await add(events.map((event) => `{"v":1,"events":[${event}]}`));
  const { worker, held, errors } = hold(2);
  await expect.poll(() => held.length, { timeout: 20_000 }).toBe(2);
  await worker.close();
  const [first, second] = held;
  const stored = await db.sql('SELECT data::text AS text FROM jobs.job WHERE id = $1', [first!.id]);
  expect(textOf(first!)).toBe(stored[0].text);
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
    const { valid } = openEnvelope(kind, JSON.parse(text), text);
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
