import { setTimeout as sleep } from 'node:timers/promises';

import pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';

import { inTransaction } from '../../src/backfill/database.ts';
import { fillIds } from '../../src/backfill/fill.ts';
import { workLane, type Task } from '../../src/backfill/step.ts';
import { TRANSFORMS } from '../../src/backfill/transforms/index.ts';
import { verify } from '../../src/backfill/verify.ts';
import { createLogger } from '../../src/logger.ts';
import { createSession } from '../../src/services/sessions.ts';
import { createAgentVersion } from '../../src/services/agents.ts';
import { upsertModuleState } from '../../src/services/moduleStates.ts';
import { testConfig } from '../support/pipeline.ts';
import {
  AGENTS,
  createFixture,
  MEMORIES,
  seedPlain,
  SESSIONS,
  STATES,
  type Fixture,
} from './fixture.ts';

let db: Fixture;
beforeEach(async () => {
  db = await createFixture();
});
afterEach(() => db.drop());

const filled = async () =>
  (await db.sql(`SELECT count(*)::int AS n FROM "AgentSession" WHERE "sessionSource" = 'user'`))[0]
    .n;

it('a worker that comes too late commits nothing', async () => {
  await seedPlain(db, 300);
  await db.start({ lanes: 1, maxChunkRows: 100 }, [SESSIONS]);
  await db.sql(`UPDATE "BackfillLane" SET "chunkRows" = 100`);
  const bench = {
    pool: db.pool,
    prisma: db.prisma,
    log: createLogger(testConfig()),
    leaseMs: 1000,
  };
  const [lane] = await db.sql(`UPDATE "BackfillLane" SET "token" = 5 RETURNING "id"`);
  const task = (token: number): Task => ({
    lane: lane.id,
    token,
    phase: 'fill',
    table: 'agent-sessions',
  });

  expect(await workLane(bench, task(4))).toEqual({});
  expect(await filled()).toBe(0);
  const first = await workLane(bench, task(5));
  expect(first).toMatchObject({ next: { token: 6 } });
  expect(await workLane(bench, task(5))).toEqual({}); // the queue delivers twice
  expect(await filled()).toBe(first.rows);

  // Presumed dead in the middle of a chunk, it holds the lane: nobody can take its place.
  const slow = new pg.Client({ connectionString: db.url });
  await slow.connect();
  await slow.query(`BEGIN; SELECT FROM "BackfillLane" FOR NO KEY UPDATE`);
  await db.sql(`UPDATE "BackfillRun" SET "status" = 'running'`);
  expect(await workLane(bench, task(6))).toEqual({});
  await slow.query('ROLLBACK');
  await slow.end();
  const second = await workLane(bench, task(6));
  expect(await filled()).toBe((first.rows ?? 0) + (second.rows ?? 0));
  expect(second.rows).toBeGreaterThan(0);
});

it('the size of chunks follows rows of 100 KB, and narrow ones', async () => {
  await db.sql(
    `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "updatedAt")
     SELECT 'wide-' || n, 'm', jsonb_build_object('text', (SELECT string_agg(md5(random()::text || n || m), '') FROM generate_series(1, 3125) m)), '1', now()
     FROM generate_series(1, 300) n`,
  );
  await seedPlain(db, 15_000);
  await db.sql(`DELETE FROM "ModuleState" WHERE "id" NOT LIKE 'wide%'`);
  await db.sql(`VACUUM FULL "ModuleState"`);
  await db.work();
  await db.start({ targetMs: 20, lanes: 1 }, [STATES, MEMORIES]);
  const first = await db.sql(`SELECT "chunkRows" AS n FROM "BackfillLane" ORDER BY "id"`);
  await db.finished([STATES, MEMORIES]);
  const lanes = await db.sql(
    `SELECT "chunkRows" AS n, "chunks", "chunkRows" * "recentBusyMs" / "recentRows" AS ms
     FROM "BackfillLane" WHERE "phase" = 'fill' ORDER BY "id"`,
  );
  expect(first[0].n).toBeLessThan(200);
  expect(first[1].n).toBe(1000);
  expect(lanes[0].n).toBeLessThan(first[0].n); // 20 ms are too short for those
  expect(lanes[1].n).not.toBe(1000);
  // Settled: a chunk of the last size takes about what it should, by the pace of the last ones.
  expect(lanes[1].chunks).toBeGreaterThan(10);
  expect(lanes[1].ms).toBeGreaterThan(20 / 2.5);
  expect(lanes[1].ms).toBeLessThan(20 * 2.5);
});

it('wide rows behind narrow ones are taken in chunks that fit into memory', async () => {
  await seedPlain(db, 3000);
  await db.sql(
    `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "updatedAt")
     SELECT 'wide-' || n, 'm', jsonb_build_object('text', (SELECT string_agg(md5(random()::text || n || m), '') FROM generate_series(1, 31250) m)), '1', now()
     FROM generate_series(1, 24) n`,
  );
  await db.work();
  await db.start({ lanes: 1 }, [STATES]);
  await db.sql(`UPDATE "BackfillLane" SET "chunkRows" = 100000`); // what narrow rows lead to
  expect(await db.finished([STATES])).toMatchObject([{ status: 'completed', changed: 3024 }]);
  const chunks = await db.sql(
    `SELECT count(*) FILTER (WHERE e ->> 0 LIKE 'wide%')::int AS wide
     FROM "BackfillUndo" u, json_array_elements(u."rows") e GROUP BY u."id"`,
  );
  // 24 MB in all, and 16 MB at a time.
  expect(Math.max(...chunks.map(({ wide }) => wide))).toBeLessThan(20);
});

it('wide rows that are named are taken in parts that fit into memory', async () => {
  await db.sql(
    `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "updatedAt")
     SELECT 'wide-' || n, 'm', jsonb_build_object('text', repeat(md5(n::text), 31250)), '1', now()
     FROM generate_series(1, 24) n`,
  );
  await db.start({}, [STATES]);
  const [run] = await db.sql(`SELECT "id" FROM "BackfillRun"`);
  const ids = Array.from({ length: 24 }, (_, n) => `wide-${n + 1}`);
  const changed = await inTransaction(db.pool, (sql) => fillIds(sql, STATES, run.id, ids));
  expect(changed).toBe(24);
  const parts = await db.sql(`SELECT json_array_length("rows") AS rows FROM "BackfillUndo"`);
  // 24 MB in all, and 16 MiB at a time.
  expect(parts.map(({ rows }) => rows)).toEqual([16, 8]);
});

it('a time that the backfill took from another follows it', async () => {
  await seedPlain(db, 50);
  await db.work();
  await db.start({}, [MEMORIES]);
  await db.finished([MEMORIES]);
  await db.sql(`UPDATE "InteractionMemory" SET "createdAt" = '2023-01-01' WHERE "id" = md5('7')`);
  await db.start({}, [MEMORIES]);
  expect(await db.finished([MEMORIES])).toMatchObject([{ status: 'completed', changed: 1 }]);
  expect(
    await db.sql(
      `SELECT "lastAccessedAt"::text AS it FROM "InteractionMemory" WHERE "id" = md5('7')`,
    ),
  ).toEqual([{ it: '2023-01-01 00:00:00' }]);
});

it('what cannot be checked or computed is set apart, and does not hold up the rest', async () => {
  await seedPlain(db, 200);
  await db.work();
  await db.start({}, [MEMORIES]);
  expect(await db.finished([MEMORIES])).toMatchObject([{ status: 'completed' }]);
  await db.sql(
    `ALTER TABLE "InteractionMemory" ADD CONSTRAINT picky CHECK ("confidence" IS DISTINCT FROM 0.7::float8) NOT VALID`,
  );
  await db.sql(
    `UPDATE "InteractionMemory" SET "importance" = 0.7 WHERE "id" IN (md5('1'), md5('2')) AND "confidence" <> 0.7`,
  );
  const deep = '['.repeat(5000) + ']'.repeat(5000);
  await db.sql(
    `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "updatedAt") VALUES ('deep', 'd', $1, '1', now()), ('__proto__', 'p', '{}', '1', now())`,
    [deep],
  );
  await db.start({}, [MEMORIES, STATES]);
  await db.finished([MEMORIES, STATES]);
  const ended = { status: 'completed_with_errors', remaining: 0 };
  expect(await db.status(MEMORIES)).toMatchObject({ ...ended, quarantined: 2 });
  expect(await db.status(STATES)).toMatchObject({ ...ended, quarantined: 1, changed: 201 });
  const reasons = await db.sql(
    `SELECT "rowId", "reason" FROM "BackfillQuarantine" ORDER BY "reason"`,
  );
  expect(reasons.map(({ reason }) => reason)).toEqual([
    expect.stringContaining('picky'),
    expect.stringContaining('picky'),
    expect.stringContaining('not computed'),
  ]);
});

it('a recount that takes longer than the lease is not begun again', async () => {
  await seedPlain(db, 500);
  await db.sql(
    `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(5); RETURN NEW; END'`,
  );
  await db.sql(
    `CREATE TRIGGER slow BEFORE UPDATE ON "AI_Agent" FOR EACH ROW WHEN (NEW."totalSessions" <> OLD."totalSessions" AND NEW."id" = 'agent-1') EXECUTE FUNCTION slow()`,
  );
  await db.work(); // with a lease of 2 s
  await db.start({}, [AGENTS]);
  expect(await db.finished([AGENTS])).toMatchObject([{ status: 'completed', revivals: 0 }]);
});

it('rows that are locked are passed over, and come last', async () => {
  await seedPlain(db, 500);
  const holder = new pg.Client({ connectionString: db.url });
  await holder.connect();
  await holder.query(
    `BEGIN; UPDATE "AgentSession" SET "status" = 'held' WHERE "sessionId" IN ('session-1', 'session-2')`,
  );
  await db.work();
  await db.start({}, [SESSIONS]);
  while ((await db.status(SESSIONS)).phase !== 'settle') await sleep(20);
  expect(await filled()).toBe(498);
  await holder.query('COMMIT');
  await holder.end();
  expect(await db.finished([SESSIONS])).toMatchObject([{ status: 'completed', changed: 500 }]);
  expect(
    await db.sql(`SELECT FROM "AgentSession" WHERE "status" = 'held' AND "sessionSource" = 'user'`),
  ).toHaveLength(2);
});

it('a run ends although rows are changed soon after they come in', async () => {
  await seedPlain(db, 20_000);
  await db.start({}, [SESSIONS]);
  let isOver = false;
  // A session begins, and ends a little later: whatever looks at the table meets some in between.
  const recent: string[] = [];
  const writer = (async () => {
    while (!isOver) {
      const id = `${Math.random()}`.slice(2);
      recent.push(id);
      await db.sql(
        `INSERT INTO "AgentSession" ("id", "sessionId", "status", "context", "updatedAt") VALUES ($1, $1, 'active', '{"goal": "late"}', now())`,
        [id],
      );
      const old = recent.length > 20 ? recent.shift() : undefined;
      if (old) await db.sql(`UPDATE "AgentSession" SET "status" = 'ended' WHERE "id" = $1`, [old]);
      await sleep(1);
    }
  })();
  await db.work();
  expect(await db.finished([SESSIONS])).toMatchObject([{ status: 'completed', remaining: 0 }]);
  isOver = true;
  await writer;
});

it('a state that comes in between two others is linked in, and a link of the application stays', async () => {
  const insert = (id: string, createdAt: string, previous: string | null = null) =>
    db.sql(
      `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "createdAt", "updatedAt", "previousStateId") VALUES ($1, 'm', '{}', '1', $2, now(), $3)`,
      [id, createdAt, previous],
    );
  const chain = async () =>
    Object.fromEntries(
      (await db.sql(`SELECT "id", "previousStateId" AS p FROM "ModuleState"`)).map(({ id, p }) => [
        id,
        p,
      ]),
    );
  await insert('a', '2024-01-01');
  await insert('d', '2024-01-04');
  await insert('x', '2024-01-10', 'd');
  await db.work();
  await db.start({}, [STATES]);
  await db.finished([STATES]);
  expect(await chain()).toEqual({ a: null, d: 'a', x: 'd' });

  await insert('c', '2024-01-03');
  await insert('b', '2024-01-02');
  await insert('y', '2024-01-05'); // before it is d, which x has followed since the application said so
  await db.start({}, [STATES]);
  expect(await db.finished([STATES])).toMatchObject([
    { status: 'completed', remaining: 0, differing: 0 },
  ]);
  expect(await chain()).toEqual({ a: null, b: 'a', c: 'b', d: 'c', x: 'd', y: null });
  expect(await verify(db.pool, STATES)).toMatchObject({ remaining: 0, differing: 0 });
});

it(
  'plain writers and the service are neither missed, overwritten, resurrected nor kept waiting for an end',
  { timeout: 60_000 },
  async () => {
    await seedPlain(db, 1500);
    await db.work();
    await db.start({ maxChunkRows: 50, lanes: 3 });
    let isOver = false;
    const set = new Set<number>();
    const deleted = new Set<number>();
    let n = 10_000;
    const faults: unknown[] = [];
    const write = async (step: () => Promise<unknown>) => {
      while (!isOver) {
        try {
          await step();
        } catch (error) {
          faults.push(error);
        }
        await sleep(2);
      }
    };
    const random = () => 1 + Math.floor(Math.random() * 1500);
    const writers = [
      write(async () => {
        const id = `${Math.random()}`.slice(2);
        await db.sql(
          `INSERT INTO "AgentSession" ("id", "sessionId", "agentId", "status", "context", "updatedAt") VALUES ($1, $1, 'agent-1', 'active', '{"goal": "late"}', now())`,
          [id],
        );
        await db.sql(
          `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "createdAt", "updatedAt") VALUES ($1, 'module-1', '{}', '1', timestamp '2024-01-01' + random() * interval '1 hour', now())`,
          [id],
        );
        await db.sql(
          `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt") VALUES ($1, 'user', 'agent-0', 'fact', '{}', random(), now())`,
          [id],
        );
      }),
      write(async () => {
        const row = random();
        if (deleted.has(row)) return;
        set.add(row);
        await db.sql(
          `UPDATE "AgentSession" SET "sessionPurpose" = 'mine', "updatedAt" = now() WHERE "id" = md5($1::text)`,
          [row],
        );
        await db.sql(
          `UPDATE "InteractionMemory" SET "importance" = random() WHERE "id" = md5($1::text)`,
          [random()],
        );
      }),
      write(async () => {
        const row = random();
        if (set.has(row)) return;
        deleted.add(row);
        for (const table of ['AgentSession', 'ModuleState', 'InteractionMemory']) {
          await db.sql(`DELETE FROM "${table}" WHERE "id" = md5($1::text)`, [row]);
        }
      }),
      write(async () => {
        await createSession(db.prisma, {
          sessionId: `live-${n++}`,
          userId: 'user',
          agentId: 'agent-2',
        });
        await upsertModuleState(db.prisma, {
          moduleId: `module-${n % 10}`,
          state: { n },
          version: '1',
        });
        if (n % 10 === 0)
          await createAgentVersion(db.prisma, {
            agentId: `agent-${n % 15}`,
            versionNumber: `2.0.${n}`,
            changes: {},
            isActive: true,
          });
      }),
    ];
    const runs = await db.finished(); // while they go on writing
    expect(runs.map(({ status, quarantined }) => [status, quarantined])).toEqual(
      TRANSFORMS.map(() => ['completed', 0]),
    );
    isOver = true;
    await Promise.all(writers);
    expect(faults).toEqual([]);
    expect(set.size).toBeGreaterThan(20);
    expect(deleted.size).toBeGreaterThan(20);

    await db.start(); // what came in after the moment that the first run ended at
    expect((await db.finished()).map(({ status }) => status)).toEqual(Array(4).fill('completed'));
    for (const table of TRANSFORMS) {
      expect(await verify(db.pool, table)).toEqual({
        table: table.name,
        remaining: 0,
        differing: 0,
        quarantined: 0,
      });
    }
    const [found] = await db.sql(
      `SELECT (SELECT count(*)::int FROM "AgentSession" WHERE "id" IN (SELECT md5(x::text) FROM unnest($1::int[]) x) AND "sessionPurpose" = 'mine') AS kept,
       (SELECT count(*)::int FROM "AgentSession" WHERE "id" IN (SELECT md5(x::text) FROM unnest($2::int[]) x)) AS resurrected,
       (SELECT count(*)::int FROM "AgentSession" WHERE "context" ->> 'goal' = 'late' AND "sessionPurpose" IS DISTINCT FROM 'late') AS missed,
       (SELECT count(*)::int FROM "AI_Agent" a WHERE "totalSessions" <> (SELECT count(*) FROM "AgentSession" s WHERE s."agentId" = a."id")) AS miscounted,
       (SELECT count(*)::int FROM "AI_Agent" a WHERE (SELECT count(*) FROM "AgentVersion" v WHERE v."agentId" = a."id" AND v."versionNumber" = '1.0.0') <> 1) AS unversioned`,
      [[...set], [...deleted]],
    );
    expect(found).toEqual({
      kept: set.size,
      resurrected: 0,
      missed: 0,
      miscounted: 0,
      unversioned: 0,
    });
    expect(await verify(db.pool, MEMORIES)).toMatchObject({ remaining: 0 });
  },
);
