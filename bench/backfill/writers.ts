import { setTimeout as sleep } from 'node:timers/promises';

import type pg from 'pg';

import { openPool } from '../../src/backfill/database.ts';
import { IDS } from './data.ts';

/** What live writers did, to be held against what the tables hold in the end. */
export interface Ledger {
  inserted: string[];
  deleted: string[];
  /** Values of the application's own: row → `sessionPurpose`, which nobody may replace. */
  set: Map<string, string>;
}

export interface Writers {
  ledger: Ledger;
  stop(): Promise<void>;
}

/** Milliseconds that a writer rests after each statement. */
const REST_MS = 5;

/**
 * Old code at work on the plain tables: rows come with random ids (before and behind every
 * cursor), rows go, and the application sets enhanced columns of its own accord.
 */
export function startWriters(databaseUrl: string, rows: number): Writers {
  const pool = openPool(databaseUrl, 4);
  const ledger: Ledger = { inserted: [], deleted: [], set: new Map() };
  const stopping = new AbortController();
  // A session that is an agent's last stays: the agent has been active then, deleted or not.
  const anyRow = () => 1 + Math.floor((Math.random() * rows) / 2);
  const steps = [
    () => insert(pool, ledger),
    async () => {
      const n = anyRow();
      const id = await rowId(pool, 'AgentSession', n);
      if (ledger.deleted.includes(id)) return;
      const { rowCount } = await pool.query(
        `UPDATE "AgentSession" SET "sessionPurpose" = $2, "updatedAt" = now() WHERE "id" = $1`,
        [id, `mine ${n}`],
      );
      if (rowCount === 1) ledger.set.set(id, `mine ${n}`);
      // What values come from changes too, behind the cursor and before it.
      await pool.query(
        `UPDATE "InteractionMemory" SET "importance" = random(), "type" = 'setting' WHERE "id" = md5('memory' || $1)`,
        [anyRow()],
      );
    },
    async () => {
      const n = anyRow();
      const ids = await Promise.all(TABLES.map((table) => rowId(pool, table, n)));
      if (ids.some((id) => ledger.set.has(id))) return;
      for (const [index, table] of TABLES.entries()) {
        await pool.query(`DELETE FROM "${table}" WHERE "id" = $1`, [ids[index]]);
      }
      ledger.deleted.push(...ids);
    },
  ];
  const running = steps.map(async (step) => {
    while (!stopping.signal.aborted) {
      await step();
      await sleep(REST_MS);
    }
  });
  for (const each of running) each.catch(() => {}); // `stop` tells; until then another fault comes first
  return {
    ledger,
    stop: async () => {
      stopping.abort();
      await Promise.all(running);
      await pool.end();
    },
  };
}

const TABLES = ['AgentSession', 'ModuleState', 'InteractionMemory'] as const;

async function rowId(pool: pg.Pool, table: keyof typeof IDS, n: number): Promise<string> {
  const { rows } = await pool.query<{ id: string }>(
    `SELECT ${IDS[table]} AS "id" FROM (SELECT $1::int AS n) x`,
    [n],
  );
  return rows[0]?.id ?? '';
}

async function insert(pool: pg.Pool, { inserted }: Ledger): Promise<void> {
  const id = crypto.randomUUID();
  await pool.query(
    `INSERT INTO "AgentSession" ("id", "sessionId", "agentId", "status", "context", "updatedAt")
     VALUES ($1, $1, 'agent-1', 'active', '{"goal": "late", "categories": ["late"]}', now())`,
    [id],
  );
  await pool.query(
    `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "createdAt", "updatedAt")
     VALUES ($1, 'module-1', '{"late": true}', '1', timestamp '2024-01-01' + random() * interval '1 hour', now())`,
    [id],
  );
  await pool.query(
    `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt")
     VALUES ($1, 'user', 'agent-1', 'fact', '{}', random(), now())`,
    [id],
  );
  inserted.push(id);
}
