import { setTimeout as sleep } from 'node:timers/promises';

import type pg from 'pg';

import { openPool } from '../../src/backfill/database.ts';
import { TRANSFORMS } from '../../src/backfill/transforms/index.ts';
import { createPrismaClient } from '../../src/database/client.ts';
import { EnhancedSchemaService } from '../../src/services/enhancedSchemaService.ts';
import { IDS } from './data.ts';

/** What live writers did, to be held against what the tables hold in the end. */
export interface Ledger {
  inserted: string[];
  deleted: string[];
  /** The application's own values, which nobody may replace: `Table.column` → row → value, as text. */
  set: Map<string, Map<string, string | null>>;
}

export interface Writers {
  ledger: Ledger;
  stop(): Promise<void>;
}

/** Milliseconds that a writer rests after each statement. */
const REST_MS = 20;

/** Milliseconds after which what was inserted is changed once more. */
const SESSION_MS = 1000;

/**
 * What the application sets of its own accord, none of it what the backfill would: all columns
 * that it fills in but the two that make up the chain of states, what is counted for agents, and
 * one by which it tells a program that knows the enhanced schema from one that does not.
 */
const OWN: Record<string, Record<string, string>> = {
  AgentSession: { sessionPurpose: 'mine', sessionTags: '{mine}', sessionSource: 'mine' },
  ModuleState: { stateType: 'mine' },
  AI_Agent: { learningMode: 'mine', trainingStatus: 'mine', specializations: '{mine}' },
  InteractionMemory: {
    memoryType: 'mine',
    confidence: '0.123',
    lastAccessedAt: '2023-01-01 00:00:00',
    verificationStatus: 'mine',
  },
};

/**
 * Old and new code at work on the tables: plain rows come with random ids (before and behind every
 * cursor), change and go; what values come from changes; the application sets enhanced columns; and
 * some go through the service.
 */
export function startWriters(databaseUrl: string, rows: number): Writers {
  const pool = openPool(databaseUrl, 6);
  const prisma = createPrismaClient(databaseUrl, { poolSize: 2 });
  EnhancedSchemaService.use(prisma);
  const ledger: Ledger = { inserted: [], deleted: [], set: new Map() };
  const stopping = new AbortController();
  const steps = [
    () => insert(pool, ledger),
    () => setOwn(pool, ledger, rows),
    () => changeSources(pool, rows),
    () => remove(pool, ledger, rows),
    () => throughService(ledger),
  ];
  const running = steps.map(async (step) => {
    while (!stopping.signal.aborted) {
      await step();
      await sleep(REST_MS);
    }
  });
  running.push(endSessions(pool, ledger, stopping.signal));
  for (const each of running) each.catch(() => {}); // `stop` tells; until then another fault comes first
  return {
    ledger,
    stop: async () => {
      stopping.abort();
      await Promise.all(running);
      await pool.end();
      await prisma.$disconnect();
    },
  };
}

const TABLES = ['AgentSession', 'ModuleState', 'InteractionMemory'] as const;

/** The rows of a test have numbers; the first half of them may go. */
const anyRow = (rows: number) => 1 + Math.floor(Math.random() * rows);

async function rowId(pool: pg.Pool, table: string, n: number): Promise<string> {
  const id = (IDS as Partial<Record<string, string>>)[table] ?? `'agent-' || n`;
  const { rows } = await pool.query<{ id: string }>(
    `SELECT ${id} AS "id" FROM (SELECT $1::int AS n) x`,
    [n],
  );
  return rows[0]?.id ?? '';
}

function note({ set }: Ledger, column: string, id: string, value: string | null): void {
  const rows = set.get(column) ?? new Map<string, string | null>();
  set.set(column, rows.set(id, value));
}

async function setOwn(pool: pg.Pool, ledger: Ledger, rows: number): Promise<void> {
  for (const [table, columns] of Object.entries(OWN)) {
    const names = Object.keys(columns);
    const name = names[Math.floor(Math.random() * names.length)] as string;
    const id = await rowId(pool, table, anyRow(table === 'AI_Agent' ? rows / 100 : rows));
    const value = columns[name] as string;
    const { rowCount } = await pool.query(
      `UPDATE "${table}" SET "${name}" = $2, "updatedAt" = now() WHERE "id" = $1`,
      [id, value],
    );
    if (rowCount === 1) note(ledger, `${table}.${name}`, id, value);
  }
}

/** What values come from changes too, in rows that are filled in and in those that are not. */
async function changeSources(pool: pg.Pool, rows: number): Promise<void> {
  await pool.query(
    `UPDATE "InteractionMemory" SET "importance" = random(), "type" = 'setting', "updatedAt" = now() WHERE "id" = $1`,
    [await rowId(pool, 'InteractionMemory', anyRow(rows))],
  );
  await pool.query(
    `UPDATE "AgentSession" SET "context" = jsonb_build_object('intent', 'changed ' || $2, 'tags', jsonb_build_array('changed')), "updatedAt" = now()
     WHERE "id" = $1`,
    [await rowId(pool, 'AgentSession', anyRow(rows)), anyRow(rows)],
  );
  await pool.query(
    `UPDATE "ModuleState" SET "state" = jsonb_build_object('changed', $2::int), "updatedAt" = now() WHERE "id" = $1`,
    [await rowId(pool, 'ModuleState', anyRow(rows)), anyRow(rows)],
  );
  await pool.query(
    `UPDATE "AI_Agent" SET "capabilities" = jsonb_build_array('changed', $2::text), "updatedAt" = now() WHERE "id" = $1`,
    [await rowId(pool, 'AI_Agent', anyRow(rows / 100)), String(anyRow(rows))],
  );
}

async function remove(pool: pg.Pool, ledger: Ledger, rows: number): Promise<void> {
  // A session that is an agent's last stays: the agent has been active then, deleted or not.
  const n = anyRow(rows / 2);
  for (const table of TABLES) {
    const id = await rowId(pool, table, n);
    await pool.query(`DELETE FROM "${table}" WHERE "id" = $1`, [id]);
    ledger.deleted.push(id);
  }
}

async function insert(pool: pg.Pool, { inserted }: Ledger): Promise<void> {
  const id = crypto.randomUUID();
  await pool.query(
    `INSERT INTO "AgentSession" ("id", "sessionId", "agentId", "status", "context", "updatedAt")
     VALUES ($1, $1, 'agent-1', 'active', '{"goal": "early"}', now())`,
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

/** Sessions that began a second ago end, by old code, and say only then what they were about. */
async function endSessions(
  pool: pg.Pool,
  { inserted }: Ledger,
  signal: AbortSignal,
): Promise<void> {
  let next = 0;
  const end = async (upTo: number) => {
    const ids = inserted.slice(next, upTo);
    next = upTo;
    await pool.query(
      `UPDATE "AgentSession" SET "status" = 'ended', "endedAt" = now(), "context" = '{"goal": "late", "categories": ["late"]}', "updatedAt" = now()
       WHERE "id" = ANY ($1)`,
      [ids],
    );
  };
  while (!signal.aborted) {
    const upTo = inserted.length;
    await sleep(SESSION_MS, undefined, { signal }).catch(() => {});
    await end(upTo);
  }
  await sleep(10 * REST_MS); // the one that is being inserted
  await end(inserted.length);
}

/** What the service writes is complete: all that the backfill fills in is the application's own. */
async function throughService(ledger: Ledger): Promise<void> {
  const keep = (table: string, row: { id: string }) => {
    const { columns = [] } = TRANSFORMS.find((transform) => transform.table === table) ?? {};
    for (const { name } of columns) {
      const value = (row as unknown as Record<string, string | number | string[] | null>)[name];
      const text = Array.isArray(value) ? `{${value.join(',')}}` : (value?.toString() ?? null);
      note(ledger, `${table}.${name}`, row.id, text);
    }
  };
  const sessionId = `service-${crypto.randomUUID()}`;
  await EnhancedSchemaService.createSession({
    sessionId,
    agentId: 'agent-2',
    context: { purpose: 'served', tags: ['served'] },
  });
  keep('AgentSession', await EnhancedSchemaService.endSession({ sessionId }));
  const [moduleId, version] = ['served', '1'];
  keep(
    'ModuleState',
    await EnhancedSchemaService.upsertModuleState({ moduleId, state: { sessionId }, version }),
  );
  keep(
    'InteractionMemory',
    await EnhancedSchemaService.createMemory({
      userId: 'user',
      agentId: 'agent-2',
      type: 'fact',
      content: {},
      importance: 0.5,
    }),
  );
}
