import { setTimeout as sleep } from 'node:timers/promises';

import { afterEach, beforeEach, expect, it } from 'vitest';

import { resume } from '../../src/backfill/runs.ts';
import { verify } from '../../src/backfill/verify.ts';
import { openTaskQueue } from '../../src/queues/backend.ts';
import { createFixture, seedPlain, SESSIONS, TIMINGS, type Fixture } from './fixture.ts';

// Who works on a lane, and when it is given to another.

let db: Fixture;
beforeEach(async () => {
  db = await createFixture();
});
afterEach(() => db.drop());

const firstChunk = async () =>
  (
    await db.sql(
      `SELECT json_array_length("rows") AS rows FROM "BackfillUndo" ORDER BY "id" LIMIT 1`,
    )
  )[0].rows;

it('a chunk whose worker ended is begun again at half its size', async () => {
  await seedPlain(db, 1000);
  await db.start({ lanes: 1 }, [SESSIONS]);
  await db.sql(
    `UPDATE "BackfillLane" SET "token" = 1, "chunkRows" = 400, "dueAt" = now() AT TIME ZONE 'utc'`,
  );
  // As a worker leaves it that was killed in the middle of its chunk.
  const worker = await db.pool.connect();
  await worker.query(`BEGIN; SELECT FROM "BackfillLane" FOR NO KEY UPDATE; ROLLBACK`);
  worker.release();
  await db.work();
  expect(await db.finished([SESSIONS])).toMatchObject([{ status: 'completed', revivals: 1 }]);
  const rows = await firstChunk();
  expect(rows).toBeGreaterThan(150);
  expect(rows).toBeLessThan(300); // 200, to the end of their block
});

it('a chunk whose task was lost before it was begun keeps its size', async () => {
  await seedPlain(db, 1000);
  await db.start({ lanes: 1 }, [SESSIONS]);
  await db.sql(
    `UPDATE "BackfillLane" SET "token" = 1, "chunkRows" = 400, "dueAt" = now() AT TIME ZONE 'utc'`,
  );
  await db.work();
  expect(await db.finished([SESSIONS])).toMatchObject([{ status: 'completed', revivals: 0 }]);
  expect(await firstChunk()).toBeGreaterThan(350);
});

it('no tasks pile up in a queue that is paused', async () => {
  await seedPlain(db, 500);
  const worker = await db.work();
  const queue = openTaskQueue(db.location, 'backfill');
  try {
    await queue.pause();
    await worker.look(); // one that asked before the pause is over
    await db.start({}, [SESSIONS]);
    await sleep(2.5 * TIMINGS.leaseMs);
    expect(await queue.getJobCountByTypes('waiting', 'prioritized', 'delayed')).toBe(0);
    await queue.resume();
    expect(await db.finished([SESSIONS])).toMatchObject([{ status: 'completed', revivals: 0 }]);
  } finally {
    await queue.close();
  }
});

it('a run of a table that a worker does not know is left alone, and holds up no other', async () => {
  await seedPlain(db, 500);
  await db.sql(
    `INSERT INTO "BackfillRun" ("id", "tableName", "totalRows", "options") VALUES (gen_random_uuid(), 'newer', 1, '{}')`,
  );
  await db.sql(
    `INSERT INTO "BackfillLane" ("runId", "phase", "low", "cursor", "high", "chunkRows", "dueAt", "movedAt")
     SELECT "id", 'fill', 0, 0, 1, 100, now() AT TIME ZONE 'utc', now() AT TIME ZONE 'utc' FROM "BackfillRun"`,
  );
  await db.work();
  await db.start({}, [SESSIONS]);
  expect(await db.finished([SESSIONS])).toMatchObject([{ status: 'completed' }]);
  expect(
    await db.sql(
      `SELECT l."token"::int AS token, r."status" FROM "BackfillLane" l JOIN "BackfillRun" r ON r."id" = l."runId" WHERE r."tableName" = 'newer'`,
    ),
  ).toEqual([{ token: 0, status: 'running' }]);
});

it('a pause that meets the end of a settling holds the run, and resume ends it', async () => {
  await seedPlain(db, 300);
  const holder = await db.pool.connect();
  await holder.query(
    `BEGIN; SELECT FROM "AgentSession" WHERE "sessionId" = 'session-1' FOR UPDATE`,
  );
  await db.work();
  await db.start({}, [SESSIONS]);
  await expect.poll(async () => (await db.status(SESSIONS)).phase).toBe('settle');
  // The pause is about to commit when the settling comes to its last statement, which waits for it.
  const pausing = await db.pool.connect();
  await pausing.query(`BEGIN; UPDATE "BackfillRun" SET "status" = 'paused'`);
  await holder.query('ROLLBACK');
  holder.release();
  await expect
    .poll(
      async () =>
        (
          await db.sql(
            `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%"finishedAt" = clock_timestamp()%'`,
          )
        ).length,
      { timeout: 10_000, interval: 5 },
    )
    .toBe(1);
  await pausing.query('COMMIT');
  pausing.release();
  await sleep(500);
  expect(await db.status(SESSIONS)).toMatchObject({ status: 'paused', phase: 'settle' });
  expect(await resume(db.pool, SESSIONS)).toBe(true);
  expect(await db.finished([SESSIONS])).toMatchObject([{ status: 'completed' }]);
  expect(await verify(db.pool, SESSIONS)).toMatchObject({ remaining: 0, differing: 0 });
});
