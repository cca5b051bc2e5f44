import { EVENT_TABLES } from '../../src/demo/ledger.ts';
import { EventList } from '../../src/queues/eventList.ts';
import type { EncodedEvent } from '../../src/queues/eventEncoding.ts';
import type { EventKind } from '../../src/queues/events.ts';
import { encodeEvent } from '../../src/queues/eventEncoding.ts';
import { EVENT_KINDS } from '../../src/queues/events.ts';
import type { TestDatabase } from './database.ts';

/** The n-th of a family of ids. */
export function eventId(n: number, family = 0): string {
  return `${family.toString(16).padStart(8, '0')}-0000-4000-8000-${n.toString(16).padStart(12, '0')}`;
}

/** A right event of each kind, for the parents that `seedParents` makes. */
export const SAMPLES: Record<EventKind, (n: number) => Record<string, unknown>> = {
  'memory-access': (n) => ({
    memoryId: `memory-${n % 3}`,
    accessType: 'read',
    accessedBy: 'agent',
    accessorType: 'agent',
    usefulness: (n % 11) / 10,
  }),
  transition: (n) => ({
    stateId: 'state',
    triggerType: 'user_action',
    transitionData: { n },
  }),
  metrics: (n) =>
    n % 2 === 0
      ? { scope: 'session', sessionId: 'session', metricType: 'turns', metricValue: n }
      : { scope: 'agent', agentId: 'agent', metricType: 'turns', metricValue: n },
  'session-event': (n) => ({
    sessionId: n % 2 === 0 ? 'session' : 'session-row',
    eventType: 'user_input',
    eventData: { n },
    sequence: n,
  }),
};

/** A right event as it stands in a job. `second` counts from 2024-05-15T15:00:00Z. */
export function sample(kind: EventKind, n: number, second = n): Record<string, unknown> {
  return {
    id: eventId(n, EVENT_KINDS.indexOf(kind) + 1),
    occurredAt: new Date(Date.UTC(2024, 4, 15, 15, 0, second)).toISOString(),
    ...SAMPLES[kind](n),
  };
}

export function encodedSample(kind: EventKind, n: number, second = n): EncodedEvent {
  return encodeEvent(kind, sample(kind, n, second));
}

/** All that events leave behind, as text that is equal exactly where the tables are. */
export async function snapshot(db: TestDatabase): Promise<string> {
  const parts = await Promise.all([
    ...EVENT_TABLES.map((table) =>
      db.sql(`SELECT coalesce(json_agg(t ORDER BY t."id")::text, '') AS text FROM "${table}" t`),
    ),
    db.sql(`SELECT json_agg(m ORDER BY m."id")::text AS text FROM "InteractionMemory" m`),
  ]);
  return parts.map(([row]) => row.text).join('\n');
}

/** Undoes what events left behind, and forgets that they were counted. */
export async function forgetEvents(db: TestDatabase): Promise<void> {
  const tables = [...EVENT_TABLES, 'EventLedger', 'EventLedgerClosed'];
  await db.sql(`TRUNCATE ${tables.map((table) => `"${table}"`).join(', ')}`);
  await db.sql(`UPDATE "InteractionMemory" SET "accessCount" = 0, "lastAccessedAt" = NULL`);
}

/** Adds a row to the ledger that nothing has touched for two days. */
export async function addIdleAccount(db: TestDatabase): Promise<void> {
  await db.sql(
    `INSERT INTO "EventLedger" ("writerId", "producerId", "kind", "accepted", "committed", "updatedAt")
     VALUES (gen_random_uuid(), gen_random_uuid(), 'metrics', 1, 1,
       now() AT TIME ZONE 'utc' - interval '2 days')`,
  );
}

/** Rows of the ledger that nothing has touched for more than a day. */
export async function idleAccounts(db: TestDatabase): Promise<number> {
  const idle = `"updatedAt" < now() AT TIME ZONE 'utc' - interval '1 day'`;
  return (await db.sql(`SELECT FROM "EventLedger" WHERE ${idle}`)).length;
}

/** Deadlocks that the database has had to break. */
export async function deadlocks(db: TestDatabase): Promise<number> {
  await db.sql('SELECT pg_stat_force_next_flush()').catch(() => {});
  const [row] = await db.sql(
    'SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()',
  );
  return row.deadlocks;
}

/** A job's events, as an envelope is opened. */
export const listOf = (kind: EventKind, encoded: EncodedEvent[]): EventList =>
  EventList.ofEncoded(
    kind,
    encoded.map(({ json }) => JSON.parse(json) as unknown),
    encoded,
  );
