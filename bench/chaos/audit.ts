import type pg from 'pg';

import { EVENT_TABLES } from '../../src/demo/ledger.ts';
import { MEMORIES, type Claim } from './notes.ts';

/** What the tables hold, against what the producers noted. */
export interface Findings {
  /** Ids in the tables. */
  committed: number;
  /** Accepted, but neither a row nor a dead letter. */
  lost: number;
  /** Rows with one and the same id, and rows that nobody emitted. */
  duplicated: number;
  /** Memories whose `accessCount` is not the number of their accesses. */
  counterErrors: number;
}

export async function seedParents(client: pg.Client): Promise<void> {
  const statements = [
    `INSERT INTO "User" ("id") VALUES ('user')`,
    `INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "updatedAt")
     VALUES ('agent', 'user', 'Agent', '[]', '{}', now())`,
    `INSERT INTO "AgentSession" ("id", "sessionId", "status", "updatedAt")
     VALUES ('session-row', 'session', 'active', now())`,
    `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "updatedAt")
     VALUES ('state', 'module', '{}', '1', now())`,
    `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt")
     SELECT 'memory-' || n, 'user', 'agent', 'fact', '{}', 0.5, now() FROM generate_series(0, ${MEMORIES - 1}) n`,
  ];
  for (const statement of statements) await client.query(statement);
}

export async function audit(client: pg.Client, claim: Claim, dead: Set<string>): Promise<Findings> {
  const rows = (
    await client.query<{ id: string }>(
      EVENT_TABLES.map((table) => `SELECT "id"::text FROM "${table}"`).join(' UNION ALL '),
    )
  ).rows.map(({ id }) => id);
  const committed = new Set(rows);
  const strangers = [...committed].filter((id) => !claim.ids.has(id) && !claim.perhaps.has(id));
  const miscounted = await client.query(
    `SELECT FROM "InteractionMemory" m
     WHERE "accessCount" <> (SELECT count(*) FROM "MemoryAccess" a WHERE a."memoryId" = m."id")`,
  );
  return {
    committed: committed.size,
    lost: [...claim.ids].filter((id) => !committed.has(id) && !dead.has(id)).length,
    duplicated: rows.length - committed.size + strangers.length,
    counterErrors: miscounted.rowCount ?? NaN,
  };
}
