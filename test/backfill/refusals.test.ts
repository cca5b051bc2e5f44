import { afterEach, beforeEach, expect, it } from 'vitest';

import { inTransaction } from '../../src/backfill/database.ts';
import { fillChunk } from '../../src/backfill/fill.ts';
import { retry, rollback } from '../../src/backfill/runs.ts';
import type { Transform } from '../../src/backfill/transform.ts';
import { verify } from '../../src/backfill/verify.ts';
import { contents, createFixture, seedPlain, STATES, type Fixture } from './fixture.ts';

// What the database refuses although no row of the application is at fault.

let db: Fixture;
beforeEach(async () => {
  db = await createFixture();
});
afterEach(() => db.drop());

const NOT_NULL = `ALTER TABLE "ModuleState" ALTER "stateHash" SET NOT NULL`;

it('a rollback that a NOT NULL forbids fails with the reason, and retry goes on once it is gone', async () => {
  await seedPlain(db, 300);
  const plain = await contents(db);
  await db.work();
  await db.start({}, [STATES]);
  await db.finished([STATES]);
  await db.sql(NOT_NULL);
  expect(await rollback(db.pool, STATES)).toBe(true);
  expect(await db.finished([STATES])).toMatchObject([
    { status: 'failed', phase: 'undo', reason: expect.stringContaining('"stateHash"') },
  ]);
  await db.sql(`ALTER TABLE "ModuleState" ALTER "stateHash" DROP NOT NULL`);
  expect(await retry(db.pool, STATES)).toBe(true);
  expect(await db.finished([STATES])).toMatchObject([{ status: 'rolled_back' }]);
  expect(await contents(db)).toEqual(plain);
});

it('a value is made anew although its column is NOT NULL by now', async () => {
  await seedPlain(db, 100);
  await db.work();
  await db.start({}, [STATES]);
  await db.finished([STATES]);
  await db.sql(NOT_NULL);
  const hash = async () =>
    (await db.sql(`SELECT "stateHash" AS it FROM "ModuleState" WHERE "id" = md5('7')`))[0].it;
  const before = await hash();
  await db.sql(`UPDATE "ModuleState" SET "state" = '{"other": 1}' WHERE "id" = md5('7')`);
  await db.start({}, [STATES]);
  expect(await db.finished([STATES])).toMatchObject([{ status: 'completed', changed: 1 }]);
  expect(await hash()).not.toBe(before);
  expect(await verify(db.pool, STATES)).toMatchObject({ remaining: 0, differing: 0 });
});

it('a row of which not even its need can be told is set apart, and verify goes on', async () => {
  await seedPlain(db, 100);
  await db.sql(
    `UPDATE "AgentSession" SET "context" = jsonb_build_object('n', CASE "sessionId" WHEN 'session-7' THEN 'seven' ELSE '1' END)`,
  );
  const raising: Transform = {
    name: 'raising',
    table: 'AgentSession',
    columns: [
      { name: 'qualityScore', type: 'float8', derive: `(t."context" ->> 'n')::int::float8` },
    ],
  };
  const [run] = await db.sql(
    `INSERT INTO "BackfillRun" ("id", "tableName", "totalRows", "options", "startedAt")
     VALUES (gen_random_uuid(), 'raising', 100, '{}', now()) RETURNING "id"`,
  );
  const place = { cursor: 0, high: 100 * 2 ** 16 };
  const chunk = await inTransaction(db.pool, (sql) => fillChunk(sql, raising, run.id, place, 1000));
  expect(chunk).toMatchObject({ changed: 99, isDone: true });
  expect(
    await db.sql(
      `SELECT s."sessionId", q."reason" FROM "BackfillQuarantine" q JOIN "AgentSession" s ON s."id" = q."rowId"`,
    ),
  ).toEqual([{ sessionId: 'session-7', reason: expect.stringContaining('"seven"') }]);
  expect(await verify(db.pool, raising)).toMatchObject({
    remaining: 0,
    differing: 0,
    quarantined: 1,
  });
});
