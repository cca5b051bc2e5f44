import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';

import { Accounts } from '../src/audit/accounts.ts';
import { openDatabase } from '../src/database/client.ts';
import { closeIdleAccounts } from '../src/ledger/closed.ts';
import { countDiscards, settleDiscards, type Discard } from '../src/ledger/discards.ts';
import { NO_PRODUCER, readLedger } from '../src/ledger/ledger.ts';
import { readTotals } from '../src/ledger/totals.ts';
import { createWrite } from '../src/workers/writers/index.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { encodedSample, eventId, forgetEvents, listOf } from './support/events.ts';
import { seedParents } from './support/pipeline.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
  await seedParents(db);
});
afterAll(() => db.drop());
beforeEach(() => forgetEvents(db));

const totals = () => readTotals({ query: async (text) => ({ rows: await db.sql(text) }) });
const rows = async (table: string) => (await db.sql(`SELECT FROM "${table}"`)).length;
/** As if nothing had touched the ledger for so long. */
const age = (days: number) =>
  db.sql(
    `UPDATE "EventLedger" SET "updatedAt" = "updatedAt" - $1 * interval '1 day'
    WHERE "updatedAt" < now() AT TIME ZONE 'utc' + interval '1 day'`,
    [days],
  );

/** What an audit makes of the ledger alone. */
async function accounts(producerIds?: string[]): Promise<Accounts> {
  const found = new Accounts();
  for (const entry of await readLedger(db.prisma, producerIds)) {
    const { kind, producerId, accepted, dropped } = entry;
    found.told(kind, { id: producerId, accepted, dropped });
    for (const place of ['committed', 'duplicates', 'discarded'] as const) {
      found.add(place, kind, producerId, entry[place]);
    }
  }
  return found;
}
const seen = async (producerIds?: string[]) => {
  const found = await accounts(producerIds);
  return [found.byKind(), found.elsewhere(), found.missingSince(found), await totals()];
};

const [EVEN, REPEATED, SHORT, OVER] = [1, 2, 3, 4].map((n) => eventId(n)) as [
  string,
  string,
  string,
  string,
];

/** Rows of two writers each: producers whose accounts balance in all ways, and of none. */
const fill = () =>
  db.sql(
    `INSERT INTO "EventLedger" ("writerId", "producerId", "kind", "accepted", "dropped", "committed",
       "duplicates")
     SELECT w::uuid, p::uuid, 'metrics', a * w_part / 2, d * w_part / 2, c, u
     FROM (VALUES ($1, 10, 2, 4, 1), ($2, 10, 0, 4, 3), ($3, 10, 0, 2, 1), ($4, 4, 0, 5, 0),
       ($5, 0, 0, 3, 1)) p (p, a, d, c, u),
     (VALUES ('${eventId(1, 9)}', 1), ('${eventId(2, 9)}', 2)) w (w, w_part)`,
    [EVEN, REPEATED, SHORT, OVER, NO_PRODUCER.id],
  );

it('closes what nothing has touched for a day, and every figure stays', async () => {
  await fill();
  const before = await seen();
  expect(before[0]).toMatchObject({
    metrics: { accepted: 34, repeated: 4, unaccounted: 4, seenTwice: 6, copies: 6 },
  });
  await closeIdleAccounts(db.prisma);
  expect([await rows('EventLedger'), await rows('EventLedgerClosed')]).toEqual([10, 0]);

  await age(2);
  await fill2();
  const young = await seen();
  await Promise.all([1, 2, 3].map(() => closeIdleAccounts(db.prisma, { chunk: 3 })));
  expect(await rows('EventLedger')).toBe(1);
  expect(await seen()).toEqual(young);
  // Whichever are asked for by themselves.
  expect(await seen([SHORT, OVER, 'no producer'])).toEqual(young);

  await age(2);
  await closeIdleAccounts(db.prisma);
  expect(await rows('EventLedger')).toBe(0);
  expect(await seen()).toEqual(young);
});

/** A young row of a producer that has idle ones. */
const fill2 = () =>
  db.sql(
    `INSERT INTO "EventLedger" ("writerId", "producerId", "kind", "accepted", "committed")
     VALUES ($1, $2, 'metrics', 11, 1)`,
    [eventId(3, 9), SHORT],
  );

it('knows a producer again that speaks after its account was closed', async () => {
  const database = openDatabase(db.url, { poolSize: 1 });
  const { prisma } = database;
  const deliver = (writer: string, accepted: number, from: number, to: number) => {
    const events = Array.from({ length: to - from }, (_, n) =>
      encodedSample('memory-access', from + n),
    );
    const producer = { id: EVEN, accepted, dropped: 0 };
    const piece = { events: listOf('memory-access', events), from: 0, to: events.length, producer };
    return createWrite(database, 'memory-access', writer)([piece]);
  };
  const account = async () => (await accounts()).byKind()['memory-access'];
  // Five of its 20 wait somewhere for their worker.
  await deliver(randomUUID(), 20, 0, 15);
  expect(await account()).toMatchObject({ accepted: 20, committed: 15, unaccounted: 5 });
  await age(200);
  await closeIdleAccounts(db.prisma);
  expect(await account()).toMatchObject({ accepted: 20, committed: 15, unaccounted: 5 });

  await deliver(randomUUID(), 18, 15, 17); // an old envelope, then one that was sent again and a new one
  expect(await account()).toMatchObject({ accepted: 20, committed: 17, unaccounted: 3 });
  await deliver(randomUUID(), 20, 10, 20);
  const whole = { accepted: 20, committed: 20, duplicates: 7, copies: 7, unaccounted: 0 };
  expect(await account()).toMatchObject({ ...whole, seenTwice: 0 });
  await deliver(randomUUID(), 21, 20, 21);
  const more = { ...whole, accepted: 21, committed: 21, seenTwice: 0 };
  expect(await account()).toMatchObject(more);
  expect((await totals())['memory-access']).toMatchObject({ accepted: 21, committed: 21 });
  await age(2);
  await closeIdleAccounts(db.prisma);
  expect(await account()).toMatchObject(more);
  expect(await db.sql(`SELECT "committed"::int FROM "EventLedgerClosed" ORDER BY 1`)).toEqual(
    [0, 21, 21].map((committed) => ({ committed })), // the empty sum is of what it once lacked
  );
  await prisma.$disconnect();
});

it('counts each event once while batches are written, accounts closed and figures read', async () => {
  const database = openDatabase(db.url, { poolSize: 6 });
  const { prisma } = database;
  const [writers, producers] = [[1, 2, 3].map((n) => eventId(n, 9)), [1, 2].map((n) => eventId(n))];
  const [perWriter, perBatch] = [60, 5];
  let closings = 0;
  let isWriting = true;
  const write = async (writer: string, index: number) => {
    for (let batch = 0; batch < perWriter; batch++) {
      const first = (index * perWriter + batch) * perBatch;
      const events = Array.from({ length: perBatch }, (_, n) =>
        encodedSample('metrics', first + n),
      );
      const id = producers[batch % 2]!;
      const producer = { id, accepted: 5 * (batch + 1), dropped: 0 };
      const piece = { events: listOf('metrics', events), from: 0, to: perBatch, producer };
      await createWrite(database, 'metrics', writer)([piece]);
      while (closings < batch / 8) await sleep(1); // however slow the machine, both go on together
    }
  };
  const during = async (work: () => Promise<unknown>) => {
    while (isWriting) await work();
  };
  let last = { accepted: 0, committed: 0 };
  const others = Promise.all([
    during(() => age(2)),
    ...[1, 2].map(() =>
      during(async () => {
        await closeIdleAccounts(prisma, { chunk: 2 });
        closings++;
      }),
    ),
    during(async () => {
      const { accepted, committed } = (await totals()).metrics;
      expect(accepted).toBeGreaterThanOrEqual(last.accepted);
      expect(committed).toBeGreaterThanOrEqual(last.committed);
      last = { accepted, committed };
      const audited = (await accounts()).byKind().metrics;
      expect(audited.accepted).toBeGreaterThanOrEqual(accepted);
      expect(audited.committed).toBeGreaterThanOrEqual(committed);
      await sleep(1);
    }),
  ]);
  await Promise.all(writers.map(write)).finally(() => (isWriting = false));
  await others;
  const events = writers.length * perWriter * perBatch;
  expect(closings).toBeGreaterThan(5);
  expect(await rows('SessionMetric')).toBe(events / 2);
  const accepted = 5 * perWriter + 5 * (perWriter - 1);
  expect((await totals()).metrics).toMatchObject({ accepted, committed: events, duplicates: 0 });
  for (const ids of [[], producers]) {
    const { metrics } = (await accounts(ids)).byKind();
    expect(metrics).toMatchObject({ accepted, committed: events, seenTwice: events - accepted });
  }
  await age(2);
  await closeIdleAccounts(prisma);
  expect(await rows('EventLedger')).toBe(0);
  const { metrics } = (await accounts()).byKind();
  expect(metrics).toMatchObject({ accepted, committed: events, seenTwice: events - accepted });
  await prisma.$disconnect();
});

it('counts a discard once, however late it is repeated', async () => {
  const producer = { id: EVEN, accepted: 3, dropped: 0 };
  const discard: Discard = { kind: 'metrics', jobId: '1', madeAt: 5, producer, events: 3 };
  const other = { ...discard, jobId: '2', producer: { ...producer, id: REPEATED } };
  const discarded = async () => (await totals()).metrics.discarded;
  await countDiscards(db.prisma, [discard, other]);
  await settleDiscards(db.prisma, [other]);
  // The job of the other one is gone; this one was cut off before it removed its own.
  await age(400);
  await closeIdleAccounts(db.prisma);
  expect(await rows('EventLedger')).toBe(1);
  await countDiscards(db.prisma, [discard]);
  expect(await discarded()).toBe(6);
  await settleDiscards(db.prisma, [discard]);
  await closeIdleAccounts(db.prisma);
  await countDiscards(db.prisma, [discard]); // by one that had read the job before it went
  expect(await discarded()).toBe(6);
  await age(2);
  await closeIdleAccounts(db.prisma);
  expect(await rows('EventLedger')).toBe(0);
  expect(await discarded()).toBe(6);
  expect((await accounts()).byKind().metrics).toMatchObject({ discarded: 6, unaccounted: 0 });
});
