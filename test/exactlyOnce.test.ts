import { randomUUID } from 'node:crypto';

import fc from 'fast-check';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { openDatabase, type Database } from '../src/database/client.ts';
import { readLedger } from '../src/ledger/ledger.ts';
import { encodeEvent } from '../src/queues/eventEncoding.ts';
import { EVENT_KINDS, type EventKind } from '../src/queues/events.ts';
import { BatchWriter, LANES } from '../src/workers/batchWriter.ts';
import type { Verdict } from '../src/workers/submission.ts';
import { createWrite, statementOf } from '../src/workers/writers/index.ts';
import { memoryAccess } from '../src/workers/writers/memoryAccess.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import {
  deadlocks,
  encodedSample,
  forgetEvents,
  listOf,
  sample,
  snapshot,
} from './support/events.ts';
import { seedParents } from './support/pipeline.ts';

let db: TestDatabase;
/** As many workers as there are clients. */
let clients: Database[];

beforeAll(async () => {
  db = await createTestDatabase();
  await seedParents(db);
  clients = Array.from({ length: 3 }, () => openDatabase(db.url));
});

afterAll(async () => {
  expect(await deadlocks(db)).toBe(0);
  await Promise.all(clients.map((client) => client.prisma.$disconnect()));
  await db.drop();
});

beforeEach(() => forgetEvents(db));

const writerOf = (kind: EventKind, database: Database, maxRows = 5000) => {
  const writes = Array.from({ length: LANES }, () => createWrite(database, kind, randomUUID()));
  return new BatchWriter({ write: (batch, lane) => writes[lane]!(batch), maxRows });
};

/** One event of a stream: the n-th of its kind. */
interface Drawn {
  kind: EventKind;
  n: number;
}

const PRODUCERS: string[] = Array.from({ length: 3 }, () => randomUUID());

/** Sends jobs to workers that run at once, of producers in turn: job k to worker k modulo their number. */
async function deliver(jobs: Drawn[][]): Promise<Verdict[]> {
  const writers = clients.map(
    (client) =>
      Object.fromEntries(EVENT_KINDS.map((kind) => [kind, writerOf(kind, client, 50)])) as Record<
        EventKind,
        BatchWriter
      >,
  );
  const verdicts = await Promise.all(
    jobs.flatMap((job, index) =>
      EVENT_KINDS.map((kind) =>
        writers[index % writers.length]![kind].submit(
          listOf(
            kind,
            job
              .filter((event) => event.kind === kind)
              .map(({ n }) => encodedSample(kind, n, (n * 7) % 60)),
          ),
          index % 4 === 3
            ? undefined
            : { id: PRODUCERS[index % 4]!, accepted: 1000 - index, dropped: 500 - index },
        ),
      ),
    ),
  );
  return verdicts.flat();
}

const streams = fc.uniqueArray(
  fc.record({ kind: fc.constantFrom(...EVENT_KINDS), n: fc.nat(200) }),
  { minLength: 1, maxLength: 200, selector: ({ kind, n }) => `${kind} ${n}` },
);

/** The stream with each event once to three times, in any order, in jobs of any size. */
const deliveries = streams.chain((stream) =>
  fc.record({
    stream: fc.constant(stream),
    jobs: fc
      .tuple(
        fc.array(fc.integer({ min: 1, max: 3 }), {
          minLength: stream.length,
          maxLength: stream.length,
        }),
        fc.infiniteStream(fc.nat()),
        fc.integer({ min: 1, max: 60 }),
      )
      .map(([times, random, jobSize]) => {
        const events = stream
          .flatMap((event, index) => Array.from({ length: times[index]! }, () => event))
          .map((event) => ({ event, place: random.next().value as number }))
          .sort((a, b) => a.place - b.place)
          .map(({ event }) => event);
        return Array.from({ length: Math.ceil(events.length / jobSize) }, (_, index) =>
          events.slice(index * jobSize, (index + 1) * jobSize),
        );
      }),
  }),
);

describe('exactly once', () => {
  it('leaves the same tables whatever the order, the repetitions and the jobs', async () => {
    await fc.assert(
      fc.asyncProperty(deliveries, async ({ stream, jobs }) => {
        await forgetEvents(db);
        await deliver([stream]);
        const once = await snapshot(db);
        await forgetEvents(db);
        const verdicts = await deliver(jobs);
        expect(verdicts.every(({ state }) => state === 'committed')).toBe(true);
        expect(await snapshot(db)).toBe(once);
        const entries = await readLedger(clients[0]!.prisma);
        for (const kind of EVENT_KINDS) {
          const ofKind = entries.filter((entry) => entry.kind === kind);
          const sum = (figure: 'committed' | 'duplicates') =>
            ofKind.reduce((total, entry) => total + entry[figure], 0);
          const distinct = stream.filter((event) => event.kind === kind).length;
          const delivered = jobs.flat().filter((event) => event.kind === kind).length;
          expect([sum('committed'), sum('duplicates')]).toEqual([distinct, delivered - distinct]);
          // The greatest counts of a producer's jobs, in whatever order they came.
          for (const { producerId, accepted, dropped } of ofKind) {
            const first = PRODUCERS.indexOf(producerId);
            const [index] = jobs.flatMap((job, k) =>
              k % 4 === first && job.some((event) => event.kind === kind) ? [k] : [],
            );
            expect([accepted, dropped]).toEqual(
              index === undefined ? [0, 0] : [1000 - index, 500 - index],
            );
          }
        }
      }),
      { numRuns: 25 },
    );
  });

  it('counts an event once when many workers get it at once', async () => {
    const events = Array.from({ length: 300 }, (_, n) => encodedSample('memory-access', n));
    const shuffled = (seed: number) =>
      events
        .map((event, n) => ({ event, place: (n * (2 * seed + 1) * 7919) % 300 }))
        .sort((a, b) => a.place - b.place)
        .map(({ event }) => event);
    const writers = clients.flatMap((client) => [
      writerOf('memory-access', client, 40),
      writerOf('memory-access', client, 70),
      writerOf('memory-access', client, 300),
    ]);
    await Promise.all(
      writers.map((writer, index) => writer.submit(listOf('memory-access', shuffled(index)))),
    );
    expect(
      await db.sql(`SELECT "id", "accessCount" AS n FROM "InteractionMemory" ORDER BY 1`),
    ).toEqual([
      { id: 'memory-0', n: 100 },
      { id: 'memory-1', n: 100 },
      { id: 'memory-2', n: 100 },
    ]);
    const inserted = writers.reduce((sum, { stats }) => sum + stats.inserted, 0);
    const duplicates = writers.reduce((sum, { stats }) => sum + stats.duplicates, 0);
    expect({ inserted, duplicates }).toEqual({
      inserted: 300,
      duplicates: 300 * (writers.length - 1),
    });
  });

  it('a metric of an agent that is not there waits, and the others are written', async () => {
    const writer = writerOf('metrics', clients[0]!);
    const events = Array.from({ length: 4 }, (_, n) =>
      encodeEvent('metrics', {
        id: sample('metrics', n).id,
        occurredAt: sample('metrics', n).occurredAt,
        scope: 'agent',
        agentId: n === 2 ? 'nobody' : 'agent',
        metricType: 'turns_solved',
        metricValue: n,
      }),
    );
    const committed = { state: 'committed' };
    expect(await writer.submit(listOf('metrics', events))).toEqual([
      committed,
      committed,
      { state: 'waiting', field: 'agentId', reference: 'nobody' },
      committed,
    ]);
    expect(writer.stats).toMatchObject({ inserted: 3, waiting: 1, refused: 0 });
  });

  it.each(EVENT_KINDS)(
    'events that are known, or wait, cost one failed statement, not one a batch: %s',
    async (kind) => {
      let failed = 0;
      const { run, runTogether } = clients[0]!;
      const count = (error: unknown) => {
        failed++;
        throw error;
      };
      const writer = writerOf(kind, {
        ...clients[0]!,
        run: (sql, parameters) => run<never>(sql, parameters).catch(count),
        runTogether: (steps) => runTogether(steps).catch(count),
      });
      const batch = async (from: number, to: number, more: object = {}) => {
        const events = Array.from({ length: to - from }, (_, n) =>
          encodeEvent(kind, { ...sample(kind, from + n), ...(n === 0 && more) }),
        );
        const verdicts = await writer.submit(listOf(kind, events));
        return verdicts.map(({ state }) => state);
      };
      const COMMITTED = Array(10).fill('committed');
      const unknown = {
        'memory-access': { memoryId: 'nobody' },
        transition: { stateId: 'nobody' },
        metrics: { sessionId: 'nobody' },
        'session-event': { sessionId: 'nobody' },
      }[kind];
      expect(await batch(0, 10)).toEqual(COMMITTED);
      expect(failed).toBe(0);
      expect(await batch(10, 20, unknown)).toEqual(['waiting', ...COMMITTED.slice(1)]);
      // Sessions are looked up before anything is written.
      const known = 'sessionId' in unknown ? 0 : 1;
      expect(failed).toBe(known);
      for (let round = 0; round < 3; round++) expect(await batch(10, 20)).toEqual(COMMITTED);
      expect(await batch(15, 25)).toEqual(COMMITTED);
      // Eight that are new, and the next is taken for new again; and the one after it.
      for (let from = 30; from < 120; from += 10) {
        expect(await batch(from, from + 10)).toEqual(COMMITTED);
      }
      expect(failed).toBe(known);
      expect(await batch(110, 120)).toEqual(COMMITTED);
      expect(failed).toBe(known + 1);
      expect(writer.stats).toMatchObject({ inserted: 115, waiting: 1, duplicates: 44 });
      const [entry] = await readLedger(clients[0]!.prisma);
      expect(entry).toMatchObject({ committed: 115, duplicates: 44 });
    },
  );

  it('queues up instead of deadlocking when batches share memories in any order', async () => {
    const MEMORIES = 1000;
    await db.sql(
      `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt")
       SELECT md5(n::text), 'user', 'agent', 'fact', '{}', 0.5, now() FROM generate_series(1, $1) n`,
      [MEMORIES],
    );
    const ids = (
      await db.sql(`SELECT "id" FROM "InteractionMemory" WHERE length("id") = 32 ORDER BY random()`)
    ).map(({ id }) => id as string);
    const writers = clients.flatMap((client) =>
      [1, 2, 3].map(() => writerOf('memory-access', client, 400)),
    );
    await Promise.all(
      writers.map((writer, index) =>
        writer.submit(
          listOf(
            'memory-access',
            Array.from({ length: 4000 }, (_, n) =>
              encodeEvent('memory-access', {
                ...sample('memory-access', index * 10_000 + n + 1000),
                memoryId: ids[(n * (2 * index + 1) + index * 111) % MEMORIES],
              }),
            ),
          ),
        ),
      ),
    );
    const [row] = await db.sql(`SELECT sum("accessCount")::int AS n FROM "InteractionMemory"`);
    expect(row.n).toBe(writers.length * 4000);
    expect(await deadlocks(db)).toBe(0);
    await forgetEvents(db);
    await db.sql(`DELETE FROM "InteractionMemory" WHERE length("id") = 32`);
  });

  it('takes the latest access whatever the order', async () => {
    const writer = writerOf('memory-access', clients[0]!);
    await writer.submit(listOf('memory-access', [encodedSample('memory-access', 30, 50)]));
    await writer.submit(listOf('memory-access', [encodedSample('memory-access', 33, 10)]));
    const [memory] = await db.sql(
      `SELECT "lastAccessedAt"::text AS at FROM "InteractionMemory" WHERE "id" = 'memory-0'`,
    );
    expect(memory.at).toBe('2024-05-15 15:00:50');
  });
});

describe('what the database alone refuses', () => {
  const REFUSED = 'no_forbidden';

  beforeAll(() =>
    db.sql(
      `ALTER TABLE "MemoryAccess" ADD CONSTRAINT ${REFUSED} CHECK ("context" IS DISTINCT FROM 'forbidden')`,
    ),
  );
  afterAll(() => db.sql(`ALTER TABLE "MemoryAccess" DROP CONSTRAINT ${REFUSED}`));

  const batchWith = (offenders: number[]) =>
    Array.from({ length: 1000 }, (_, n) => {
      const event = encodedSample('memory-access', n);
      return offenders.includes(n)
        ? { ...event, json: event.json.replace('{', '{"context":"forbidden",') }
        : event;
    });

  it.each([[[0]], [[999]], [[437]], [[3, 4, 900]]])(
    'is alone refused: offenders %j of 1,000',
    async (offenders) => {
      const writer = writerOf('memory-access', clients[0]!);
      const verdicts = await writer.submit(listOf('memory-access', batchWith(offenders)));
      verdicts.forEach((verdict, n) => {
        if (offenders.includes(n))
          expect(verdict).toMatchObject({
            state: 'refused',
            reason: expect.stringContaining(REFUSED),
          });
        else expect(verdict.state).toBe('committed');
      });
      expect(writer.stats.statements).toBeLessThanOrEqual(1 + 20 * offenders.length);
      const [row] = await db.sql('SELECT count(*)::int AS n FROM "MemoryAccess"');
      expect(row.n).toBe(1000 - offenders.length);
    },
  );
});

// Of a parent that another batch changed meanwhile, PostgreSQL checks the newest version against
// the conditions below the lock once more. With an array of 5,000 ids among these, two workers on the
// same memories took 20 times as long as one.
describe('what is checked again of a parent that changed meanwhile', () => {
  interface Node {
    'Node Type': string;
    Plans?: Node[];
  }
  const locksOf = (node: Node): Node[] => [
    ...(node['Node Type'] === 'LockRows' ? [node] : []),
    ...(node.Plans ?? []).flatMap(locksOf),
  ];

  it.each(EVENT_KINDS)('is an id, and no array: %s', async (kind) => {
    const [explained] = await db.sql<{ 'QUERY PLAN': { Plan: Node }[] }>(
      `EXPLAIN (FORMAT JSON) ${statementOf(kind)}`,
      ['[]', randomUUID(), kind, '[]', []],
    );
    const locks = locksOf(explained!['QUERY PLAN'][0]!.Plan);
    expect(locks).toHaveLength(kind === 'metrics' ? 2 : 1);
    for (const lock of locks) expect(JSON.stringify(lock)).not.toContain('ANY (');
  });
});

describe('accesses of one worker', () => {
  /** Jobs of 50 accesses each to one of the memories, which have ids of their own. */
  const jobsOf = (memory: number, count: number, first: number) =>
    Array.from({ length: count }, (_, job) =>
      listOf(
        'memory-access',
        Array.from({ length: 50 }, (__, n) =>
          encodeEvent('memory-access', {
            ...sample('memory-access', first + job * 50 + n),
            memoryId: `memory-${memory}`,
          }),
        ),
      ),
    );

  it('of a memory are stored while somebody holds up those of another; of the same one they wait', async () => {
    const writer = writerOf('memory-access', clients[0]!, 100);
    const holder = new pg.Client({ connectionString: db.url });
    await holder.connect();
    try {
      await holder.query('BEGIN');
      await holder.query(`SELECT 1 FROM "InteractionMemory" WHERE "id" = 'memory-0' FOR UPDATE`);
      const stored: string[] = [];
      const submit = (name: string, memory: number, count: number, first: number) =>
        Promise.all(jobsOf(memory, count, first).map((events) => writer.submit(events))).then(
          (verdicts) => {
            stored.push(name);
            return verdicts.flat();
          },
        );
      const held = submit('held', 0, 2, 0);
      await expect.poll(() => writer.stats.statements).toBe(1);
      const waiting = submit('waiting', 0, 2, 1000);
      const other = await submit('other', 1, 4, 2000);
      expect(other.every(({ state }) => state === 'committed')).toBe(true);
      expect(stored).toEqual(['other']);
      expect(writer.stats.statements).toBe(3);
      await holder.query('COMMIT');
      await Promise.all([held, waiting]);
      expect(
        await db.sql(`SELECT "id", "accessCount" FROM "InteractionMemory" ORDER BY 1 LIMIT 2`),
      ).toEqual([
        { id: 'memory-0', accessCount: 200 },
        { id: 'memory-1', accessCount: 200 },
      ]);
    } finally {
      await holder.end();
    }
  });
});

// Of new events nothing else keeps two batches from locking the same memories in different orders.
describe('the order in which memories of new accesses are locked', () => {
  interface Node {
    'Node Type': string;
    'CTE Name'?: string;
    'Subplan Name'?: string;
    Plans?: Node[];
  }
  const nodesOf = (node: Node): Node[] => [node, ...(node.Plans ?? []).flatMap(nodesOf)];

  it.each([1, 30, 300, 3000, 30_000])('is that of their ids: %i memories', async (memories) => {
    await db.sql(
      `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt")
       SELECT 'planned-' || n, 'user', 'agent', 'fact', '{}', 1, now() FROM generate_series(1, $1::int) n`,
      [memories],
    );
    try {
      await db.sql('VACUUM ANALYZE "InteractionMemory"');
      const [explained] = await db.sql<{ 'QUERY PLAN': { Plan: Node }[] }>(
        `EXPLAIN (FORMAT JSON) ${memoryAccess.count}`,
        ['[]'],
      );
      const update = nodesOf(explained!['QUERY PLAN'][0]!.Plan).find(
        (node) => node['Node Type'] === 'ModifyTable',
      );
      const join = update!.Plans!.find((plan) => plan['Node Type'] === 'Nested Loop');
      expect(join).toMatchObject({
        'Node Type': 'Nested Loop',
        Plans: [{ 'CTE Name': 'told' }, {}],
      });
    } finally {
      await db.sql(`DELETE FROM "InteractionMemory" WHERE "id" LIKE 'planned-%'`);
      await db.sql('VACUUM ANALYZE "InteractionMemory"');
    }
  });
});
