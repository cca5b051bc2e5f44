import { randomUUID } from 'node:crypto';

import fc from 'fast-check';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { openDatabase, type Database } from '../src/database/client.ts';
import { sqlState } from '../src/database/faults.ts';
import { NO_PRODUCER } from '../src/ledger/ledger.ts';
import { openText, packEnvelope } from '../src/queues/envelope.ts';
import type { EventList } from '../src/queues/eventList.ts';
import { encodeEvent } from '../src/queues/eventEncoding.ts';
import { EVENT_KINDS, type EventKind } from '../src/queues/events.ts';
import { eventsOf, jobsOf, startsOf, type Batch } from '../src/workers/batch.ts';
import { createWrite, linesOfKind, statementOf } from '../src/workers/writers/index.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { deadlocks, eventId, forgetEvents, listOf, sample, snapshot } from './support/events.ts';
import { seedParents } from './support/pipeline.ts';

let db: TestDatabase;
let database: Database;

beforeAll(async () => {
  db = await createTestDatabase();
  await seedParents(db);
  database = openDatabase(db.url);
});

afterAll(async () => {
  await database.prisma.$disconnect();
  await db.drop();
});

beforeEach(() => forgetEvents(db));

const batchOf = (...lists: EventList[]): Batch =>
  lists.map((events) => ({ events, from: 0, to: events.length, producer: NO_PRODUCER }));

/** As a worker reads a job of a producer. */
const read = (kind: EventKind, events: object[]): EventList => {
  const encoded = events.map((event) => encodeEvent(kind, event));
  const opened = openText(kind, packEnvelope(encoded), linesOfKind(kind));
  return opened ? opened.valid : listOf(kind, encoded);
};

/** A database of which is counted what is copied, and what is written otherwise. */
function counted() {
  const counts = { copied: 0, written: 0 };
  return {
    counts,
    run: (async (sql, parameters) => {
      if (sql.includes('"EventLedger"')) counts.written++;
      return database.run(sql, parameters);
    }) as Database['run'],
    runTogether: async (steps: Parameters<Database['runTogether']>[0]) => {
      await database.runTogether(steps);
      counts.copied++;
    },
  };
}

/** What COPY, JSON and SQL each escape in their own ways. */
const text = fc.oneof(
  fc.string({ unit: 'binary', minLength: 1, maxLength: 20 }),
  fc
    .array(
      fc.constantFrom('\\', '\t', '\n', '\r', '\\N', '\\.', '"', "'", '\b', '\u007f', 'é', '😀'),
      {
        minLength: 1,
        maxLength: 8,
      },
    )
    .map((parts) => parts.join('')),
);
const number = fc.double({ noNaN: true, noDefaultInfinity: true });
const json = fc.jsonValue({ maxDepth: 2 }).filter((value) => value !== null);

const FIELDS: Readonly<Record<EventKind, fc.Arbitrary<object>>> = {
  'memory-access': fc.record(
    { accessType: text, accessedBy: text, context: fc.option(text), usefulness: fc.constant(null) },
    { requiredKeys: [] },
  ),
  transition: fc.record(
    { triggerId: text, transitionData: json, previousValues: fc.option(json), newValues: json },
    { requiredKeys: [] },
  ),
  metrics: fc.record(
    { metricType: text, metricValue: number, metadata: fc.option(json) },
    { requiredKeys: [] },
  ),
  'session-event': fc.record(
    {
      eventType: text,
      eventData: json,
      sequence: fc.integer(),
      duration: number.map(Math.abs),
    },
    { requiredKeys: [] },
  ),
};

it.each(EVENT_KINDS)(
  'copies to the bit what the statement for all batches writes: %s',
  async (kind) => {
    const runs = fc.array(FIELDS[kind], { minLength: 1, maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(runs, async (fields) => {
        const batch = batchOf(
          read(
            kind,
            fields.map((some, n) => ({ ...sample(kind, n), ...some })),
          ),
        );
        await forgetEvents(db);
        await database.run(statementOf(kind), [
          jobsOf(batch),
          randomUUID(),
          kind,
          eventsOf(batch),
          `{${startsOf(batch).join(',')}}`,
        ]);
        const written = await snapshot(db);
        await forgetEvents(db);
        const counting = counted();
        await createWrite(counting, kind, randomUUID())(batch);
        expect(counting.counts).toEqual({ copied: 1, written: 0 });
        expect(await snapshot(db)).toBe(written);
      }),
      { numRuns: 60 },
    );
  },
);

it('keeps the value of each number that a foreign producer wrote', async () => {
  const event = JSON.stringify(sample('session-event', 1));
  const numbers = ['9007199254740993', '12345678901234567890', '0.10000000000000000555', '0.1'];
  const tiny = `0.${'0'.repeat(399)}1`; // as jsonb prints 1e-400
  for (const [n, number_] of [...numbers, '1e-400'].entries()) {
    const own = event
      .replace(eventId(1, 4), eventId(n, 4))
      .replace('{"n":1}', `{"n":${number_},"s":"a 12345678901234567890"}`);
    const { valid } = openText(
      'session-event',
      `{"v":1,"events":[${own}]}`,
      linesOfKind('session-event'),
    )!;
    const counting = counted();
    await createWrite(counting, 'session-event', randomUUID())(batchOf(valid));
    expect(counting.counts.copied).toBe(number_ === '0.1' ? 1 : 0);
  }
  const rows = await db.sql(`SELECT "eventData"->>'n' AS n FROM "SessionEvent" ORDER BY "id"`);
  expect(rows.map(({ n }) => n)).toEqual([...numbers, tiny]);
});

describe('a session', () => {
  const events = (names: string[]) =>
    names.map((sessionId, n) => ({ ...sample('session-event', n), sessionId }));
  const stored = async () =>
    (await db.sql(`SELECT "sessionId" FROM "SessionEvent" ORDER BY "id"`)).map(
      ({ sessionId }) => sessionId as string,
    );

  beforeAll(() =>
    db.sql(
      `INSERT INTO "AgentSession" ("id", "sessionId", "status", "updatedAt")
       VALUES ('both', 'name\\of', 'active', now()), ('other', 'both', 'active', now())`,
    ),
  );

  it('is known by either name, and by its id where that is the other name of another', async () => {
    const counting = counted();
    const write = createWrite(counting, 'session-event', randomUUID());
    await write(
      batchOf(
        read('session-event', events(['both', 'name\\of', 'session', 'other'])),
        read('session-event', [{ ...sample('session-event', 7), sessionId: 'both' }]),
      ),
    );
    expect(counting.counts).toEqual({ copied: 1, written: 0 });
    expect(await stored()).toEqual(['both', 'both', 'session-row', 'other', 'both']);
  });
});

it('does not wait for somebody who is writing the same event, but the statement after it does', async () => {
  const holder = new pg.Client({ connectionString: db.url });
  await holder.connect();
  try {
    const [first, second] = [0, 1].map((n) => read('transition', [sample('transition', n)]));
    await holder.query('BEGIN');
    await holder.query(
      `INSERT INTO "StateTransition" ("id", "stateId", "triggerType", "transitionData")
       VALUES ($1, 'state', 'held', '{}')`,
      [sample('transition', 0)['id']],
    );
    const counting = counted();
    const write = createWrite(counting, 'transition', randomUUID());
    const written = write(batchOf(second!, first!));
    await expect.poll(() => counting.counts.written).toBe(1);
    await holder.query('COMMIT');
    expect(await written).toEqual({ inserted: 1, waiting: [] });
    expect(await db.sql('SELECT "triggerType" AS t FROM "StateTransition" ORDER BY "id"')).toEqual([
      { t: 'held' },
      { t: 'user_action' },
    ]);
    expect(await deadlocks(db)).toBe(0);
  } finally {
    await holder.end();
  }
});

describe('a table into which COPY is not possible, or would not tell what became a row', () => {
  it('is written by the statement, with one trial in nine batches: row-level security', async () => {
    const role = `annals_${randomUUID().replaceAll('-', '')}`;
    await db.sql(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`);
    await db.sql(`GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO ${role}`);
    await db.sql('ALTER TABLE "SessionEvent" ENABLE ROW LEVEL SECURITY');
    await db.sql('CREATE POLICY all_rows ON "SessionEvent" USING (true)');
    const url = Object.assign(new URL(db.url), { username: role, password: 'secret' }).href;
    const { prisma, run, runTogether } = openDatabase(url);
    const failures: unknown[] = [];
    try {
      const noting: Database['runTogether'] = (steps) =>
        runTogether(steps).catch((error: unknown) => {
          failures.push(sqlState(error));
          throw error;
        });
      const write = createWrite({ run, runTogether: noting }, 'session-event', randomUUID());
      for (let n = 0; n < 9; n++) {
        const batch = batchOf(read('session-event', [sample('session-event', n)]));
        expect(await write(batch)).toEqual({ inserted: 1, waiting: [] });
      }
      expect(failures).toEqual(['0A000']);
    } finally {
      await prisma.$disconnect();
      await db.sql('DROP POLICY all_rows ON "SessionEvent"');
      await db.sql('ALTER TABLE "SessionEvent" DISABLE ROW LEVEL SECURITY');
      await db.sql(`DROP OWNED BY ${role}`);
      await db.sql(`DROP ROLE ${role}`);
    }
  });

  it('is written by the statement, and counted by what became a row: a trigger that leaves rows out', async () => {
    await db.sql(`CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql
      AS $$ BEGIN RETURN CASE WHEN NEW."context" = 'no' THEN NULL ELSE NEW END; END $$`);
    await db.sql(`CREATE TRIGGER leave_out BEFORE INSERT ON "MemoryAccess"
      FOR EACH ROW EXECUTE FUNCTION leave_out()`);
    try {
      const counting = counted();
      const events = [0, 3, 6].map((n) => ({
        ...sample('memory-access', n),
        context: n === 3 ? 'no' : 'yes',
      }));
      await createWrite(
        counting,
        'memory-access',
        randomUUID(),
      )(batchOf(read('memory-access', events)));
      expect(counting.counts).toEqual({ copied: 0, written: 1 });
      expect(
        await db.sql(`SELECT "accessCount" AS n FROM "InteractionMemory" WHERE "id" = 'memory-0'`),
      ).toEqual([{ n: 2 }]);
    } finally {
      await db.sql('DROP TRIGGER leave_out ON "MemoryAccess"');
      await db.sql('DROP FUNCTION leave_out');
    }
  });
});

it('copies parts of jobs, and counts these', async () => {
  const events = Array.from({ length: 10 }, (_, n) => sample('memory-access', n));
  const list = read('memory-access', events);
  const counting = counted();
  const write = createWrite(counting, 'memory-access', randomUUID());
  await write([{ events: list, from: 7, to: 10, producer: NO_PRODUCER }]);
  await write([{ events: list, from: 0, to: 7, producer: NO_PRODUCER }]);
  expect(counting.counts).toEqual({ copied: 2, written: 0 });
  const accesses = await db.sql(
    `SELECT m."accessCount" AS n, m."lastAccessedAt" = max(a."occurredAt") AS latest, count(*)::int AS rows
     FROM "InteractionMemory" m JOIN "MemoryAccess" a ON a."memoryId" = m."id" GROUP BY m."id" ORDER BY m."id"`,
  );
  expect(accesses).toEqual([4, 3, 3].map((n) => ({ n, latest: true, rows: n })));
});

describe('statements that run together', () => {
  const insert = (id: string) => ({
    sql: `INSERT INTO "User" ("id") VALUES ($1)`,
    parameters: [id],
  });
  const copy = (...ids: string[]) => ({
    sql: 'COPY "User" ("id") FROM STDIN',
    copy: ids.map((id) => `${id}\n`),
  });
  const users = async () =>
    (await db.sql(`SELECT "id" FROM "User" WHERE "id" LIKE 'together-%' ORDER BY 1`)).map(
      ({ id }) => id as string,
    );

  let one: Database;
  const backend = () =>
    one.run(`SELECT pg_backend_pid()::text AS pid, current_setting('lock_timeout') AS lock`, []);
  beforeAll(() => {
    one = openDatabase(db.url, { poolSize: 1 });
  });
  afterAll(() => one.prisma.$disconnect());
  beforeEach(() => db.sql(`DELETE FROM "User" WHERE "id" LIKE 'together-%'`));

  it.each([
    ['the first', [insert('user'), copy('together-1'), insert('together-2')]],
    [
      'a COPY',
      [insert('together-1'), copy('together-2', 'user', 'together-3'), insert('together-4')],
    ],
    ['the last', [insert('together-1'), copy('together-2', 'together-3'), insert('user')]],
  ])('leave nothing if one fails, and the connection as it was: %s', async (_, steps) => {
    await db.sql(`INSERT INTO "User" ("id") VALUES ('user') ON CONFLICT DO NOTHING`);
    const before = await backend();
    const failure = await one
      .runTogether([{ sql: `SELECT set_config('lock_timeout', '9s', true)` }, ...steps])
      .then(
        () => undefined,
        (error: unknown) => error,
      );
    expect(sqlState(failure)).toBe('23505');
    expect(await users()).toEqual([]);
    expect(await backend()).toEqual(before);
    await one.runTogether([
      insert('together-1'),
      copy('together-2', 'together-é'),
      insert('together-3'),
    ]);
    expect(await users()).toEqual(['together-1', 'together-2', 'together-3', 'together-é']);
  });

  it('fail with their connection, and the next ones have another', async () => {
    const failing = one.runTogether([
      insert('together-1'),
      { sql: 'SELECT pg_terminate_backend(pg_backend_pid())' },
      copy('together-2'),
    ]);
    await expect(failing).rejects.toMatchObject({ code: '57P01' });
    expect(await users()).toEqual([]);
    await one.runTogether([copy('together-1')]);
    expect(await users()).toEqual(['together-1']);
  });
});
