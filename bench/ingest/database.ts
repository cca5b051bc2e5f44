import type pg from 'pg';

import { withClient } from '../backfill/data.ts';
import { copyInto } from './copy.ts';
import { eventsOf, parentsOf, PRODUCERS, type Load } from './load.ts';
import { COLUMNS, copyLine, TABLES, tableOf } from './rows.ts';

const PARENT_TABLES = ['User', 'AI_Agent', 'AgentSession', 'ModuleState', 'InteractionMemory'];

/** Schemas in which contestants keep their queues. */
const QUEUE_SCHEMAS = ['bench_annals', 'bench_pgboss', 'bench_graphile'] as const;

/**
 * Writes the rows that the load is to become into a schema of their own, each with the `ordinal`
 * of its event, so that a part of the load has its right rows there as well.
 */
export async function writeExpected(databaseUrl: string, load: Load): Promise<void> {
  await withClient(databaseUrl, async (client) => {
    await client.query('CREATE SCHEMA expected');
    const lines = new Map(TABLES.map((table) => [table, [] as string[]]));
    for (let producer = 0; producer < PRODUCERS; producer++) {
      let ordinal = producer;
      for (const planned of eventsOf(producer, load)) {
        lines.get(tableOf(planned))?.push(`${ordinal}\t${copyLine(planned)}`);
        ordinal += PRODUCERS;
      }
    }
    for (const [table, rows] of lines) {
      await client.query(
        `CREATE TABLE expected."${table}" AS SELECT 0 AS "ordinal", t.* FROM "${table}" t WITH NO DATA`,
      );
      await copyInto(client, `expected."${table}"`, ['ordinal', ...COLUMNS[table]], rows);
      await client.query(`ANALYZE expected."${table}"`);
    }
  });
}

/** Removes what contestants keep in PostgreSQL besides the tables. */
export const dropQueues = (databaseUrl: string): Promise<void> =>
  withClient(databaseUrl, async (client) => {
    for (const schema of QUEUE_SCHEMAS) {
      await client.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE`);
    }
  });

/** Puts the tables into the state in which every turn begins: parents only, written out to disk. */
export async function resetTables(databaseUrl: string, load: Load): Promise<void> {
  const { agents, sessions, states, memories } = parentsOf(load);
  await withClient(databaseUrl, async (client) => {
    const tables = [...TABLES, ...PARENT_TABLES, 'EventLedger'].map((table) => `"${table}"`);
    await client.query(`TRUNCATE ${tables.join(', ')} CASCADE`);
    await client.query(`INSERT INTO "User" ("id") VALUES ('user')`);
    await insert(
      client,
      `INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "updatedAt")
       SELECT id, 'user', id, '[]', '{}', now() FROM unnest($1::text[]) id`,
      agents,
    );
    // A session's two names are the same here, so that nobody has to look one up.
    await insert(
      client,
      `INSERT INTO "AgentSession" ("id", "sessionId", "status", "updatedAt")
       SELECT id, id, 'active', now() FROM unnest($1::text[]) id`,
      sessions,
    );
    await insert(
      client,
      `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "updatedAt")
       SELECT id, 'module', '{}', '1', now() FROM unnest($1::text[]) id`,
      states,
    );
    await insert(
      client,
      `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt")
       SELECT id, 'user', 'agent-0-0', 'fact', '{"text": "what was learned"}', 0.5, now() FROM unnest($1::text[]) id`,
      memories,
    );
    await client.query('VACUUM ANALYZE');
    await client.query('CHECKPOINT');
  });
}

const insert = (client: pg.Client, sql: string, ids: readonly string[]) => client.query(sql, [ids]);

/** What a look at the tables after a turn found. */
export interface Verdict {
  /** Rows that are there and should not be, or the other way round; a wrong value counts twice. */
  wrongRows: number;
  /** Memories whose `accessCount` is not the number of their accesses. */
  wrongCounters: number;
  /** Memories whose `lastAccessedAt` is not the time of their latest access. */
  wrongLastAccess: number;
}

/**
 * Compares the tables with what the first `events` of the load should have left, value by value.
 *
 * @param since - rows that occurred before are nobody's business
 */
export async function verify(databaseUrl: string, events: number, since?: Date): Promise<Verdict> {
  const which = since ? `WHERE "occurredAt" >= '${since.toISOString()}'` : '';
  return withClient(databaseUrl, async (client) => {
    let wrongRows = 0;
    for (const table of TABLES) {
      const columns = COLUMNS[table].map((column) => `"${column}"`).join(', ');
      const stored = `SELECT ${columns} FROM "${table}" ${which}`;
      const right = `SELECT ${columns} FROM expected."${table}" WHERE "ordinal" < ${events}`;
      const { rows } = await client.query<{ n: number }>(
        `SELECT (SELECT count(*) FROM (${stored} EXCEPT ALL ${right}) x)::int
              + (SELECT count(*) FROM (${right} EXCEPT ALL ${stored}) x)::int AS n`,
      );
      wrongRows += rows[0]?.n ?? NaN;
    }
    const { rows } = await client.query<Omit<Verdict, 'wrongRows'>>(
      `SELECT count(*) FILTER (WHERE m."accessCount" <> coalesce(e.n, 0))::int AS "wrongCounters",
         count(*) FILTER (WHERE m."lastAccessedAt" IS DISTINCT FROM e.latest)::int AS "wrongLastAccess"
       FROM "InteractionMemory" m LEFT JOIN (
         SELECT "memoryId", count(*) AS n, max("occurredAt") AS latest
         FROM expected."MemoryAccess" WHERE "ordinal" < $1 GROUP BY 1
       ) e ON e."memoryId" = m."id"`,
      [events],
    );
    return { wrongRows, wrongCounters: NaN, wrongLastAccess: NaN, ...rows[0] };
  });
}
