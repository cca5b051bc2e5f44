import { setTimeout as sleep } from 'node:timers/promises';

import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { recountSessions } from '../src/services/sessionCounts.ts';
import { createSession } from '../src/services/sessions.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { seedParents } from './support/pipeline.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
  await seedParents(db);
});
afterAll(() => db.drop());

const counted = () =>
  db.sql(`SELECT "id", "totalSessions", "lastActiveAt"::text AS latest FROM "AI_Agent" ORDER BY 1`);

it('counts each session once while sessions are created and other recounts run', async () => {
  await db.sql(`UPDATE "AI_Agent" SET "totalSessions" = 1000`);
  let creating = true;
  const creations = Promise.all(
    Array.from({ length: 4 }, async (_, lane) => {
      for (let n = 0; n < 25; n++) {
        await createSession(db.prisma, { sessionId: `s-${lane}-${n}`, agentId: 'agent' });
      }
    }),
  ).finally(() => (creating = false));
  let healed = 0;
  const recounts = Array.from({ length: 2 }, async () => {
    while (creating) {
      const { drift } = await recountSessions(db.prisma);
      healed += drift;
      await sleep(2);
    }
  });
  await Promise.all([creations, ...recounts]);
  expect(healed).toBe(1000);
  expect(await counted()).toMatchObject([{ id: 'agent', totalSessions: 100 }]);
  expect(await recountSessions(db.prisma)).toMatchObject({ agents: 0, drift: 0 });
});

it('heals a drift once, however many recounts find it at once', async () => {
  await db.sql(`UPDATE "AI_Agent" SET "totalSessions" = "totalSessions" + 7`);
  const holder = new pg.Client({ connectionString: db.url });
  await holder.connect();
  await holder.query('BEGIN');
  await holder.query('SELECT FROM "AI_Agent" FOR UPDATE');
  const recounts = Promise.all([recountSessions(db.prisma), recountSessions(db.prisma)]);
  for (let waiting = 0; waiting < 2; await sleep(10)) {
    const [row] = await db.sql(
      `SELECT count(*)::int AS waiting FROM pg_stat_activity
       WHERE datname = current_database() AND wait_event_type = 'Lock'`,
    );
    waiting = row.waiting;
  }
  await holder.query('COMMIT');
  await holder.end();
  expect((await recounts).map(({ drift }) => drift).toSorted((a, b) => a - b)).toEqual([0, 7]);
  expect(await counted()).toMatchObject([{ id: 'agent', totalSessions: 100 }]);
});

it('says how many agents were corrected and by how much, and finds the latest session', async () => {
  await db.sql(
    `INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "updatedAt", "totalSessions")
     VALUES ('idle', 'user', '', '[]', '{}', now(), 3), ('right', 'user', '', '[]', '{}', now(), 0)`,
  );
  await db.sql(
    `INSERT INTO "AgentSession" ("id", "sessionId", "agentId", "status", "startedAt", "updatedAt")
     VALUES ('x', 'x', 'agent', 'active', '2999-01-01', now()), ('y', 'y', 'gone', 'active', now(), now())`,
  );
  expect(await recountSessions(db.prisma)).toEqual({ checked: 3, agents: 2, drift: 4 });
  expect(await counted()).toEqual([
    { id: 'agent', totalSessions: 101, latest: '2999-01-01 00:00:00' },
    { id: 'idle', totalSessions: 0, latest: null },
    { id: 'right', totalSessions: 0, latest: null },
  ]);
});
