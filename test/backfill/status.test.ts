import { setTimeout as sleep } from 'node:timers/promises';

import { afterEach, beforeEach, expect, it } from 'vitest';

import { pause, resume } from '../../src/backfill/runs.ts';
import { summary } from '../../src/cli/backfillReport.ts';
import { createFixture, MEMORIES, seedPlain, SESSIONS, type Fixture } from './fixture.ts';

// What people are told of a run that is under way.

let db: Fixture;
beforeEach(async () => {
  db = await createFixture();
});
afterEach(() => db.drop());

it('a run that nobody works on is said to be, and has no time left', async () => {
  await seedPlain(db, 1000);
  const worker = await db.work();
  await db.start({ maxChunkRows: 20, restMs: 50 }, [SESSIONS]);
  await expect.poll(async () => (await db.status(SESSIONS)).etaMs).not.toBeNull();
  expect((await db.status(SESSIONS)).isUnattended).toBe(false);
  await worker.stop(5000);
  await expect
    .poll(async () => (await db.status(SESSIONS)).isUnattended, { timeout: 15_000 })
    .toBe(true);
  const status = await db.status(SESSIONS);
  expect(status).toMatchObject({ status: 'running', etaMs: null });
  expect(summary([status])).toContain('nobody is working on it; run: npx annals worker');
  await db.work();
  await expect.poll(async () => (await db.status(SESSIONS)).isUnattended).toBe(false);
});

it('a chunk that takes longer than its lease is no reason to say so', async () => {
  await seedPlain(db, 300);
  await db.sql(`
    CREATE FUNCTION "sleep"() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(10); RETURN NEW; END $$;
    CREATE TRIGGER "sleepy" BEFORE UPDATE ON "AgentSession" FOR EACH ROW
      WHEN (OLD."sessionId" = 'session-1') EXECUTE FUNCTION "sleep"()`);
  await db.work(); // with a lease of 2 s
  await db.start({}, [SESSIONS]);
  await sleep(8500);
  expect(await db.status(SESSIONS)).toMatchObject({ status: 'running', isUnattended: false });
});

it('the time that a run was paused does not count as time that it took', async () => {
  await seedPlain(db, 1000);
  await db.work();
  await db.start({ maxChunkRows: 20, restMs: 20 }, [SESSIONS]);
  await sleep(500);
  await pause(db.pool, SESSIONS);
  await sleep(500);
  const { elapsedMs } = await db.status(SESSIONS);
  await sleep(3000);
  expect((await db.status(SESSIONS)).elapsedMs).toBe(elapsedMs);
  const startedAt = performance.now();
  await resume(db.pool, SESSIONS);
  const [run] = await db.finished([SESSIONS]);
  const took = performance.now() - startedAt;
  expect(run?.elapsedMs).toBeGreaterThan(elapsedMs);
  expect(run?.elapsedMs).toBeLessThan(elapsedMs + took + 200);
});

it('the reasons of rows in quarantine are told, of five rows', async () => {
  await seedPlain(db, 100);
  await db.sql(
    `ALTER TABLE "InteractionMemory" ADD CONSTRAINT "not_seven" CHECK ("confidence" IS DISTINCT FROM 0.7) NOT VALID`,
  );
  await db.work();
  await db.start({}, [MEMORIES]);
  const [run] = await db.finished([MEMORIES]);
  expect(run?.quarantined).toBe(9);
  const told = summary([run!]);
  expect(told.match(/violates check constraint "not_seven"/g)).toHaveLength(5);
  expect(told).toContain('and 4 rows more, in the table "BackfillQuarantine"');
});
