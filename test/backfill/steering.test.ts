import { setTimeout as sleep } from 'node:timers/promises';

import { afterEach, beforeEach, expect, it } from 'vitest';

import { cancel, pause, resume, retry, rollback, start } from '../../src/backfill/runs.ts';
import { TRANSFORMS } from '../../src/backfill/transforms/index.ts';
import { dryRun, verify } from '../../src/backfill/verify.ts';
import {
  AGENTS,
  contents,
  createFixture,
  MEMORIES,
  seedPlain,
  SESSIONS,
  STATES,
  type Fixture,
} from './fixture.ts';

/** Slow enough to be met in the middle. */
const SLOW = { maxChunkRows: 20, restMs: 20 };

let db: Fixture;
beforeEach(async () => {
  db = await createFixture();
});
afterEach(() => db.drop());

const filled = async () =>
  (await db.sql(`SELECT count(*)::int AS n FROM "AgentSession" WHERE "sessionSource" = 'user'`))[0]
    .n;

it('a table has one run at a time, however many processes start it', async () => {
  await seedPlain(db, 100);
  const begun = await Promise.all(Array.from({ length: 5 }, () => start(db.pool, SESSIONS)));
  expect(begun.filter(Boolean)).toHaveLength(1);
  expect(await db.sql(`SELECT count(*)::int AS n FROM "BackfillRun"`)).toEqual([{ n: 1 }]);
});

it('pauses, resumes and cancels within two seconds, each as often as one likes', async () => {
  await seedPlain(db, 4000);
  await db.work();
  await db.start(SLOW, [SESSIONS]);
  while ((await filled()) === 0) await sleep(20);

  expect(await pause(db.pool, SESSIONS)).toBe(true);
  expect(await pause(db.pool, SESSIONS)).toBe(false);
  await sleep(500);
  const held = await filled();
  await sleep(500);
  expect(await filled()).toBe(held);
  expect(held).toBeLessThan(4000);

  expect(await resume(db.pool, SESSIONS)).toBe(true);
  expect(await resume(db.pool, SESSIONS)).toBe(false);
  const resumedAt = Date.now();
  while ((await filled()) === held) await sleep(20);
  expect(Date.now() - resumedAt).toBeLessThan(2000);

  expect(await cancel(db.pool, SESSIONS)).toBe(true);
  expect(await cancel(db.pool, SESSIONS)).toBe(false);
  await sleep(500);
  const left = await filled();
  await sleep(300);
  expect(await filled()).toBe(left);
  expect((await db.status(SESSIONS)).status).toBe('cancelled');

  await db.start({}, [SESSIONS]); // from where it was: the rows themselves say what is left
  const [run] = await db.finished([SESSIONS]);
  expect(run).toMatchObject({ status: 'completed', remaining: 0, differing: 0 });
  expect(run?.changed).toBe(4000 - left);
});

/** Sleeps in the update of a session: a chunk that is at it takes long, and holds its lane. */
const SLEEPY = (session: string, seconds: number) => `
  CREATE FUNCTION "sleep"() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(${seconds}); RETURN NEW; END $$;
  CREATE TRIGGER "sleepy" BEFORE UPDATE ON "AgentSession" FOR EACH ROW
    WHEN (OLD."sessionId" = '${session}' AND OLD."sessionSource" IS NULL) EXECUTE FUNCTION "sleep"()`;

const sleepers = async () =>
  (
    await db.sql(
      `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`,
    )
  ).length;

const within2s = async <T>(work: Promise<T>): Promise<T> => {
  const startedAt = Date.now();
  const result = await work;
  expect(Date.now() - startedAt).toBeLessThan(2000);
  return result;
};

it('a start does not read the whole table, and says about how many rows it has', async () => {
  await db.sql(`ALTER TABLE "AgentSession" SET (fillfactor = 10, autovacuum_enabled = false)`);
  await seedPlain(db, 8000);
  const read = async () =>
    (
      await db.sql(
        `SELECT (t.seq_tup_read + (SELECT sum(i.idx_tup_read) FROM pg_stat_user_indexes i WHERE i.relid = t.relid))::int AS n
         FROM pg_stat_user_tables t WHERE t.relname = 'AgentSession'`,
      )
    )[0].n;
  // Each of the two pools has used one connection, whose figures the server takes now.
  await db.sql('SELECT pg_stat_force_next_flush()');
  const before = await read();
  expect(await within2s(start(db.pool, SESSIONS))).toBe(true);
  const { rows } = await db.status(SESSIONS);
  expect(rows).toBeGreaterThan(0.8 * 8000);
  expect(rows).toBeLessThan(1.2 * 8000);
  await db.pool.query('SELECT pg_stat_force_next_flush()');
  expect((await read()) - before).toBeLessThan(0.7 * 8000);
});

it('a table that is locked is said to be, and a start may be repeated', async () => {
  await seedPlain(db, 100);
  const holder = await db.pool.connect();
  await holder.query(`BEGIN; LOCK TABLE "AgentSession"`);
  const startedAt = Date.now();
  await expect(start(db.pool, SESSIONS)).rejects.toMatchObject({
    code: 'BUSY',
    message: expect.stringContaining('a lock on the table "AgentSession"'),
  });
  expect(Date.now() - startedAt).toBeLessThan(30_000);
  await holder.query('ROLLBACK');
  holder.release();
  expect(await start(db.pool, SESSIONS)).toBe(true);
});

it('a settling that takes long is in the way of no command', async () => {
  await seedPlain(db, 300);
  await db.sql(SLEEPY('session-1', 60));
  const holder = await db.pool.connect();
  await holder.query(
    `BEGIN; SELECT FROM "AgentSession" WHERE "sessionId" = 'session-1' FOR UPDATE`,
  );
  await db.work();
  await db.start({}, [SESSIONS]);
  await expect.poll(async () => (await db.status(SESSIONS)).phase).toBe('settle');
  await holder.query('ROLLBACK'); // all other phases are past that row
  holder.release();
  await expect.poll(sleepers).toBe(1);

  // As if it had been paused in the moment between two statements.
  await db.sql(`UPDATE "BackfillRun" SET "status" = 'paused'`);
  expect(await within2s(resume(db.pool, SESSIONS))).toBe(true);
  expect(await sleepers()).toBe(1);

  expect(await within2s(pause(db.pool, SESSIONS))).toBe(true);
  await expect.poll(sleepers, { timeout: 2000 }).toBe(0);
  expect(await within2s(resume(db.pool, SESSIONS))).toBe(true);
  await expect.poll(sleepers).toBe(1);

  expect(await within2s(rollback(db.pool, SESSIONS))).toBe(true);
  expect(await sleepers()).toBe(0);
  expect(await db.finished([SESSIONS])).toMatchObject([{ status: 'rolled_back' }]);
  expect(await filled()).toBe(0);
});

it('rollback takes back the chunk of an earlier run that is still under way', async () => {
  await seedPlain(db, 300);
  const plain = await contents(db);
  await db.sql(SLEEPY('session-1', 5));
  await db.work();
  for (let run = 0; run < 2; run++) {
    await db.start({}, [SESSIONS]);
    await expect.poll(sleepers).toBe(1);
    await sleep(500);
    expect(await cancel(db.pool, SESSIONS)).toBe(true);
  }
  expect(await within2s(rollback(db.pool, SESSIONS))).toBe(true);
  expect(await db.finished([SESSIONS])).toMatchObject([{ status: 'rolled_back' }]);
  await expect.poll(sleepers).toBe(0);
  await sleep(200);
  expect(await contents(db)).toEqual(plain);
  expect(await db.sql(`SELECT FROM "BackfillUndo"`)).toEqual([]);
});

it('rows that the database refuses are set apart, alone, until retry clears them', async () => {
  await seedPlain(db, 1000);
  await db.sql(
    `ALTER TABLE "InteractionMemory" ADD CONSTRAINT "not_seven" CHECK ("confidence" IS DISTINCT FROM 0.7) NOT VALID`,
  );
  const poison = await db.sql(
    `SELECT "id" FROM "InteractionMemory" WHERE "importance" = 0.7 ORDER BY "id"`,
  );
  expect(poison.length).toBeGreaterThan(80);
  await db.work();
  await db.start({}, [MEMORIES]);
  expect(await db.finished([MEMORIES])).toMatchObject([
    { status: 'completed_with_errors', quarantined: poison.length, changed: 1000 - poison.length },
  ]);
  const quarantine = await db.sql(
    `SELECT "rowId", "reason" FROM "BackfillQuarantine" ORDER BY "rowId"`,
  );
  expect(quarantine.map(({ rowId }) => rowId)).toEqual(poison.map(({ id }) => id));
  expect(quarantine[0].reason).toContain('violates check constraint "not_seven"');

  expect(await retry(db.pool, MEMORIES)).toBe(true); // the cause is still there
  expect(await db.finished([MEMORIES])).toMatchObject([
    { status: 'completed_with_errors', quarantined: poison.length },
  ]);
  await db.sql(`ALTER TABLE "InteractionMemory" DROP CONSTRAINT "not_seven"`);
  expect(await retry(db.pool, MEMORIES)).toBe(true);
  expect(await db.finished([MEMORIES])).toMatchObject([{ status: 'completed', quarantined: 0 }]);
  expect(await retry(db.pool, MEMORIES)).toBe(false);
  expect(await verify(db.pool, MEMORIES)).toMatchObject({ remaining: 0, differing: 0 });
});

it('a statement that cannot work fails the run, and retry goes on where it was', async () => {
  await seedPlain(db, 200);
  await db.sql(`ALTER TABLE "AgentSession" RENAME "sessionTags" TO "renamed"`);
  await db.work();
  await db.start({}, [SESSIONS]);
  expect(await db.finished([SESSIONS])).toMatchObject([
    { status: 'failed', reason: expect.stringContaining('sessionTags') },
  ]);
  await db.sql(`ALTER TABLE "AgentSession" RENAME "renamed" TO "sessionTags"`);
  expect(await retry(db.pool, SESSIONS)).toBe(true);
  expect(await db.finished([SESSIONS])).toMatchObject([{ status: 'completed', changed: 200 }]);
});

it('verify counts what is missing and what is wrong, and leaves what the application wrote', async () => {
  await seedPlain(db, 300);
  expect(await verify(db.pool, STATES)).toMatchObject({ remaining: 300, differing: 0 });
  await db.work();
  await db.start();
  await db.finished();
  for (const table of TRANSFORMS) {
    expect(await verify(db.pool, table)).toEqual({
      table: table.name,
      remaining: 0,
      differing: 0,
      quarantined: 0,
    });
  }
  await db.sql(
    `UPDATE "InteractionMemory" SET "confidence" = NULL WHERE "id" IN (SELECT "id" FROM "InteractionMemory" LIMIT 3)`,
  );
  expect(await verify(db.pool, MEMORIES)).toMatchObject({ remaining: 3, differing: 0 });
  // Something changes what values come from, and says nothing: the values are wrong now.
  await db.sql(
    `UPDATE "AgentSession" SET "context" = '{"purpose": "other"}' WHERE "sessionId" = 'session-1'`,
  );
  await db.sql(`UPDATE "ModuleState" SET "state" = '{"other": 1}' WHERE "id" = md5('1')`);
  expect(await verify(db.pool, SESSIONS)).toMatchObject({ remaining: 0, differing: 1 });
  expect(await verify(db.pool, STATES)).toMatchObject({ remaining: 0, differing: 1 });
  // The application has its own purpose for this one.
  await db.sql(
    `UPDATE "AgentSession" SET "context" = '{"purpose": "other"}', "sessionPurpose" = 'mine', "sessionTags" = '{}' WHERE "sessionId" = 'session-2'`,
  );
  expect(await verify(db.pool, SESSIONS)).toMatchObject({ differing: 1 });

  await db.start();
  expect((await db.finished()).map(({ status }) => status)).toEqual(Array(4).fill('completed'));
  for (const table of TRANSFORMS)
    expect(await verify(db.pool, table)).toMatchObject({ remaining: 0, differing: 0 });
  expect(
    await db.sql(
      `SELECT "sessionPurpose" AS it FROM "AgentSession" WHERE "sessionId" IN ('session-1', 'session-2') ORDER BY "sessionId"`,
    ),
  ).toEqual([{ it: 'other' }, { it: 'mine' }]);
});

it('rollback restores exactly what was changed, leaves later changes alone, and survives a kill', async () => {
  await seedPlain(db, 2000);
  const plain = await contents(db);
  const worker = await db.work();
  await db.start({ maxChunkRows: 100 });
  await db.finished();
  expect(await contents(db)).not.toEqual(plain);

  for (const table of TRANSFORMS) expect(await rollback(db.pool, table)).toBe(true);
  for (const table of TRANSFORMS) expect(await rollback(db.pool, table)).toBe(false);
  await sleep(100);
  await worker.stop(0); // in the middle of it
  await db.work();
  expect((await db.finished()).map(({ status }) => status)).toEqual(Array(4).fill('rolled_back'));
  expect(await contents(db)).toEqual(plain);
  expect(await db.sql(`SELECT count(*)::int AS n FROM "BackfillUndo"`)).toEqual([{ n: 0 }]);

  await db.start();
  await db.finished();
  await db.sql(
    `UPDATE "AgentSession" SET "sessionPurpose" = 'mine' WHERE "sessionId" = 'session-7'`,
  );
  await db.sql(
    `UPDATE "AI_Agent" SET "totalSessions" = "totalSessions" + 1 WHERE "id" = 'agent-3'`,
  );
  await db.sql(
    `UPDATE "AgentVersion" SET "performance" = '{"score": 1}' WHERE "agentId" = 'agent-3'`,
  );
  for (const table of TRANSFORMS) await rollback(db.pool, table);
  await db.finished();
  expect(
    await db.sql(
      `SELECT "sessionId" FROM "AgentSession" WHERE coalesce("sessionPurpose", "sessionTags"::text, "sessionSource") IS NOT NULL`,
    ),
  ).toEqual([{ sessionId: 'session-7' }]);
  expect(
    await db.sql(`SELECT "id", "learningMode" FROM "AI_Agent" WHERE "totalSessions" > 0`),
  ).toEqual([{ id: 'agent-3', learningMode: null }]);
  expect(await db.sql(`SELECT "agentId" FROM "AgentVersion"`)).toEqual([{ agentId: 'agent-3' }]);
});

it('rollback deletes a version only if all of it is as the backfill made it', async () => {
  await seedPlain(db, 900); // agent-0 to agent-9
  await db.sql(
    `INSERT INTO "AgentVersion" ("id", "agentId", "versionNumber", "changes", "isActive", "activatedAt")
     VALUES (gen_random_uuid(), 'agent-1', '2.0.0', '{}', true, now())`,
  );
  await db.work();
  await db.start({}, [AGENTS]);
  await db.finished([AGENTS]);
  const by = (agent: number, set: string) =>
    db.sql(`UPDATE "AgentVersion" SET ${set} WHERE "agentId" = $1 AND "versionNumber" = '1.0.0'`, [
      `agent-${agent}`,
    ]);
  await db.sql(`DELETE FROM "AgentVersion" WHERE "versionNumber" = '2.0.0'`);
  await by(1, `"isActive" = true, "activatedAt" = now()`);
  await by(2, `"changes" = '{"configuration": {"model": "m"}, "notes": "the first"}'`);
  await by(3, `"changes" = '{"configuration": {"model": "n"}}'`);
  await by(4, `"createdById" = 'user'`);
  await by(5, `"performance" = '{"score": 1}'`);
  await by(6, `"isActive" = false`);
  await by(7, `"createdAt" = now()`);
  await by(8, `"deactivatedAt" = now()`);
  // The agent is another by now, its version is not.
  await db.sql(`UPDATE "AI_Agent" SET "configuration" = '{"model": "o"}' WHERE "id" = 'agent-9'`);
  await rollback(db.pool, AGENTS);
  expect(await db.finished([AGENTS])).toMatchObject([{ status: 'rolled_back' }]);
  const left = await db.sql(`SELECT "agentId" FROM "AgentVersion" ORDER BY "agentId"`);
  expect(left.map(({ agentId }) => agentId)).toEqual(
    Array.from({ length: 8 }, (_, index) => `agent-${index + 1}`),
  );
});

it('a dry run names the rows that the database would refuse', async () => {
  await seedPlain(db, 50);
  await db.sql(
    `ALTER TABLE "InteractionMemory" ADD CONSTRAINT "not_seven" CHECK ("confidence" IS DISTINCT FROM 0.7) NOT VALID`,
  );
  const poison = await db.sql(
    `SELECT "id" FROM "InteractionMemory" WHERE "importance" = 0.7 ORDER BY "id"`,
  );
  const { refused } = await dryRun(db.pool, MEMORIES);
  expect(refused.map(({ id }) => id)).toEqual(poison.map(({ id }) => id));
  expect(refused[0]?.reason).toContain('violates check constraint "not_seven"');
  expect(await db.sql(`SELECT FROM "BackfillQuarantine"`)).toEqual([]);
});

it('a dry run shows before and after, and changes nothing', async () => {
  await seedPlain(db, 500);
  const plain = await contents(db);
  const found = await dryRun(db.pool, SESSIONS);
  expect(found).toMatchObject({ table: 'agent-sessions', rows: 500, sampled: 500, needing: 500 });
  expect(found.estimateMs).toBeGreaterThan(0);
  expect(found.examples[0]?.before).toMatchObject({ sessionSource: null, sessionPurpose: null });
  expect(found.examples[0]?.after).toMatchObject({
    sessionSource: 'user',
    sessionTags: ['a', 'b'],
  });
  expect((await dryRun(db.pool, AGENTS)).needing).toBe(6);
  expect(await contents(db)).toEqual(plain);
  expect(await db.sql(`SELECT FROM "BackfillRun"`)).toEqual([]);
});
