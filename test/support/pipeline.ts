import { describe, inject } from 'vitest';

import { loadConfig, type Config } from '../../src/config.ts';
import { createLogger } from '../../src/logger.ts';
import {
  createProducer,
  type Producer,
  type ProducerOptions,
} from '../../src/producers/producer.ts';
import { openQueue, type EventQueue, type QueueLocation } from '../../src/queues/backend.ts';
import { EVENT_KINDS, type EventKind } from '../../src/queues/events.ts';
import { startWorkers, type Workers } from '../../src/workers/runtime.ts';
import { redisUrl, testPrefix, type TestDatabase } from './database.ts';

export const testConfig = (env: Record<string, string> = {}): Config =>
  loadConfig({
    ANNALS_LOG_LEVEL: process.env['TEST_LOG'] ?? 'silent',
    ANNALS_SPOOL_DIR: process.env['ANNALS_SPOOL_DIR'],
    // On a loaded machine, too, `flush()` is to mean the queue; the spool has tests of its own.
    ANNALS_SPOOL_AFTER_MS: '60000',
    ...env,
  });

/** Runs a suite once on each queue back end; Redis is skipped where there is no `redis-server`. */
export function describeBackends(
  name: string,
  suite: (locate: (db: Pick<TestDatabase, 'url'>) => QueueLocation) => void,
): void {
  describe.skipIf(inject('redisUrl') === null)(`${name} on Redis`, () => {
    suite(() => ({ kind: 'redis', url: redisUrl(), prefix: testPrefix() }));
  });
  describe(`${name} on PostgreSQL`, () => {
    suite((db) => ({ kind: 'postgres', url: db.url, prefix: 'annals' }));
  });
}

export function testWorkers(
  db: Pick<TestDatabase, 'url'>,
  queue: QueueLocation,
  env: Record<string, string> = {},
): Promise<Workers> {
  const config = testConfig(env);
  return startWorkers({ databaseUrl: db.url, queue, config, log: createLogger(config) });
}

export function testProducer(
  queue: QueueLocation,
  options: Partial<ProducerOptions> & { env?: Record<string, string> } = {},
): Producer {
  return createProducer({ queue, config: testConfig(options.env), ...options });
}

/** Queues to look into; `close()` them in the end. */
export function openQueues(location: QueueLocation): Record<EventKind, EventQueue> & {
  close(): Promise<void>;
} {
  const queues = Object.fromEntries(
    EVENT_KINDS.map((kind) => [kind, openQueue(location, kind)]),
  ) as Record<EventKind, EventQueue>;
  return {
    ...queues,
    close: async () => {
      await Promise.all(Object.values(queues).map((queue) => queue.close()));
    },
  };
}

/** Waits until no job is waiting, active or delayed. */
export async function drained(
  queues: Record<EventKind, EventQueue>,
  timeoutMs = 60_000,
): Promise<void> {
  const giveUpAt = Date.now() + timeoutMs;
  for (;;) {
    const counts = await Promise.all(
      EVENT_KINDS.map((kind) =>
        queues[kind].getJobCounts('waiting', 'active', 'delayed', 'prioritized'),
      ),
    );
    const left = counts.flatMap((count) => Object.values(count)).reduce((sum, n) => sum + n, 0);
    if (left === 0) return;
    if (Date.now() > giveUpAt) throw new Error(`${left} jobs left: ${JSON.stringify(counts)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Parents for events: an agent, a session, a module state and some memories. */
export async function seedParents(db: Pick<TestDatabase, 'sql'>, memories = 3): Promise<void> {
  await db.sql(`INSERT INTO "User" ("id") VALUES ('user')`);
  await db.sql(
    `INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "updatedAt")
     VALUES ('agent', 'user', 'Agent', '[]', '{}', now())`,
  );
  await db.sql(
    `INSERT INTO "AgentSession" ("id", "sessionId", "status", "updatedAt")
     VALUES ('session-row', 'session', 'active', now())`,
  );
  await db.sql(
    `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "updatedAt")
     VALUES ('state', 'module', '{}', '1', now())`,
  );
  await db.sql(
    `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt")
     SELECT 'memory-' || n, 'user', 'agent', 'fact', '{}', 0.5, now() FROM generate_series(0, $1 - 1) n`,
    [memories],
  );
}
