import type { EventTable } from '../../src/demo/ledger.ts';
import { withClient } from '../backfill/data.ts';
import { parentsOf, type Load } from '../ingest/load.ts';
import { resetTables } from '../ingest/database.ts';

/** Before all of the load, which is of January 2025. */
export const LOAD_SINCE = new Date('2025-01-01T00:00:00Z');

/** When the first of the rows occurred that a database holds before the load. */
const HELD_SINCE = new Date('2024-01-01T00:00:00Z');

/** A UUIDv7 of the time `t`, which is as random in its tail as `n` is hashed. */
const ID = `(lpad(to_hex((extract(epoch FROM t) * 1000)::bigint), 12, '0') || '7'
  || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid`;

type Parent = keyof ReturnType<typeof parentsOf>;

/** The tables: the share of the load's rows that each takes, and what a held row has. */
const TABLES: Record<EventTable, { share: number; parent: Parent; row: Record<string, string> }> = {
  MemoryAccess: {
    share: 0.45,
    parent: 'memories',
    row: {
      memoryId: 'p.id',
      accessType: `'read'`,
      accessedBy: `'agent-0-0'`,
      accessorType: `'agent'`,
      context: `'looked up before an answer'`,
      usefulness: '0.5',
    },
  },
  SessionEvent: {
    share: 0.3,
    parent: 'sessions',
    row: {
      sessionId: 'p.id',
      eventType: `'tool_call'`,
      eventData: `'{"tool": "search", "arguments": {"query": "what is held"}}'`,
      sequence: 'n::int',
      duration: '12.5',
    },
  },
  SessionMetric: {
    share: 0.1,
    parent: 'sessions',
    row: { sessionId: 'p.id', metricType: `'latency_ms'`, metricValue: '42.5' },
  },
  StateTransition: {
    share: 0.1,
    parent: 'states',
    row: {
      stateId: 'p.id',
      triggerType: `'agent_decision'`,
      transitionData: `'{"from": "planning", "to": "acting"}'`,
      newValues: `'{"step": 1}'`,
    },
  },
  AgentMetric: {
    share: 0.05,
    parent: 'agents',
    row: {
      agentId: 'p.id',
      metricType: `'turns_solved'`,
      metricValue: '1',
      timeframe: `'daily'`,
    },
  },
};

/**
 * Fills a database with rows of the load's kinds, in its shares and of its parents, that are a year
 * older. Their foreign keys hold by construction and are not checked again.
 */
export async function hold(databaseUrl: string, load: Load, rows: number): Promise<void> {
  await resetTables(databaseUrl, load);
  const parents = parentsOf(load);
  await withClient(databaseUrl, async (client) => {
    await client.query('SET session_replication_role = replica');
    for (const [table, { share, parent, row }] of Object.entries(TABLES)) {
      const columns = Object.keys(row).map((column) => `"${column}"`);
      await client.query(
        `INSERT INTO "${table}" ("id", "occurredAt", ${columns.join(', ')})
         SELECT ${ID}, t, ${Object.values(row).join(', ')}
         FROM (SELECT n, $2::timestamp + n * interval '1 second' AS t,
                 1 + (hashint8(n) & 2147483647) % cardinality($1::text[]) AS place
               FROM generate_series(1, $3::bigint) n) x
           JOIN unnest($1::text[]) WITH ORDINALITY AS p (id, place) USING (place)`,
        [parents[parent], HELD_SINCE, Math.round(rows * share)],
      );
    }
    await client.query('VACUUM (FREEZE, ANALYZE)');
    await client.query('CHECKPOINT');
  });
}

/** Takes away what a turn left, and nothing that was held before. */
export async function resetLoad(databaseUrl: string): Promise<void> {
  await withClient(databaseUrl, async (client) => {
    for (const table of Object.keys(TABLES)) {
      await client.query(`DELETE FROM "${table}" WHERE "occurredAt" >= $1`, [LOAD_SINCE]);
    }
    await client.query('TRUNCATE "EventLedger"');
    await client.query(`UPDATE "InteractionMemory" SET "accessCount" = 0, "lastAccessedAt" = NULL`);
    await client.query('VACUUM ANALYZE');
    await client.query('CHECKPOINT');
  });
}
