import { Redis } from 'ioredis';
import pino from 'pino';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { checkRedisSafety } from '../src/cli/reach.ts';
import type { QueueLocation } from '../src/queues/backend.ts';
import { EVENT_KINDS, type EventKind } from '../src/queues/events.ts';
import {
  createTestDatabase,
  describeRedis,
  testPrefix,
  type TestDatabase,
} from './support/database.ts';
import { sample } from './support/events.ts';
import { drained, openQueues, seedParents, testProducer, testWorkers } from './support/pipeline.ts';
import { run } from './support/process.ts';
import { startRedis, type TestServer } from './support/servers.ts';

const MIB = 1024 * 1024;

describeRedis('a Redis that workers start on', () => {
  let server: TestServer;
  let admin: Redis;
  let db: TestDatabase;
  beforeAll(async () => {
    [server, db] = await Promise.all([startRedis(), createTestDatabase()]);
    admin = new Redis(server.url);
  });
  afterAll(async () => {
    admin.disconnect();
    await Promise.all([server.stop(), db.drop()]);
  });

  const warningsOf = async (url: string): Promise<string[]> => {
    const lines: string[] = [];
    await checkRedisSafety(
      url,
      pino({}, { write: (text: string) => void lines.push(JSON.parse(text).msg) }),
    );
    return lines;
  };

  it('is refused if it may evict jobs, with the line to change', async () => {
    await admin.config('SET', 'maxmemory', '100mb', 'maxmemory-policy', 'allkeys-lru');
    const env = {
      DATABASE_URL: db.url,
      REDIS_URL: server.url,
      ANNALS_QUEUE_BACKEND: 'redis',
      ANNALS_QUEUE_PREFIX: testPrefix(),
    };
    const { code, stderr } = await run(
      process.execPath,
      ['--import', 'tsx', 'src/cli/main.ts', 'worker'],
      { env },
    );
    expect(code, stderr).toBe(2);
    expect(stderr).toContain('its maxmemory-policy is allkeys-lru');
    expect(stderr).toContain('CONFIG SET maxmemory-policy noeviction');

    // Locks are keys with a lifetime, and go first under a policy of that kind.
    await admin.config('SET', 'maxmemory-policy', 'volatile-lru');
    await expect(warningsOf(server.url)).rejects.toThrow('volatile-lru');
    await admin.config('SET', 'maxmemory-policy', 'noeviction');
    expect(await warningsOf(server.url)).toEqual([]);
    await admin.config('SET', 'maxmemory', '0', 'maxmemory-policy', 'allkeys-lru');
    expect(await warningsOf(server.url)).toEqual([
      expect.stringContaining('harmless only as long as it has no maxmemory'),
    ]);
    await admin.config('SET', 'maxmemory-policy', 'noeviction');
  });

  it('is looked into without CONFIG, where a managed one forbids it', async () => {
    await admin.config('SET', 'maxmemory', '100mb', 'maxmemory-policy', 'allkeys-lru');
    await admin.call('ACL', 'SETUSER', 'tenant', 'on', '>tenant', '~*', '+@all', '-config');
    const url = Object.assign(new URL(server.url), { username: 'tenant', password: 'tenant' }).href;
    await expect(warningsOf(url)).rejects.toThrow('allkeys-lru');
    await admin.config('SET', 'maxmemory', '0', 'maxmemory-policy', 'noeviction');
    expect(await warningsOf(url)).toEqual([]);
  });

  it('is warned of if it does not write its data to disk', async () => {
    await admin.config('SET', 'appendonly', 'no');
    expect(await warningsOf(server.url)).toEqual([
      expect.stringContaining(
        'what is queued is lost when it stops. Better: CONFIG SET appendonly yes',
      ),
    ]);
    await admin.config('SET', 'save', '3600 1');
    expect(await warningsOf(server.url)).toEqual([
      expect.stringContaining('since its last snapshot'),
    ]);
  });
});

describeRedis('a drained queue', () => {
  const EVENTS = 50_000;

  /** Where each kind takes a long text. */
  const TEXTS: Record<EventKind, (text: string) => object> = {
    'memory-access': (context) => ({ context }),
    transition: (text) => ({ transitionData: { text } }),
    metrics: (text) => ({ metadata: { text } }),
    'session-event': (text) => ({ eventData: { text } }),
  };

  it.each([
    ['small events', 0],
    ['events that fill their jobs to a megabyte', 2000],
  ])('leaves Redis within 10 MiB of where it began, after %s', async (_, padding) => {
    const [server, db] = await Promise.all([
      startRedis({ appendonly: false }),
      createTestDatabase(),
    ]);
    await seedParents(db);
    const admin = new Redis(server.url);
    const usedMemory = async () => Number(/used_memory:(\d+)/.exec(await admin.info('memory'))![1]);
    const before = await usedMemory();

    const queue: QueueLocation = { kind: 'redis', url: server.url, prefix: testPrefix() };
    const producer = testProducer(queue);
    const count = padding > 0 ? EVENTS / 4 : EVENTS;
    const text = 'x'.repeat(padding);
    for (let n = 0; n < count; n++) {
      const kind = EVENT_KINDS[n % EVENT_KINDS.length]!;
      producer.emit(kind, {
        ...sample(kind, n, 0),
        ...(padding > 0 && TEXTS[kind](text)),
      } as never);
      if (n % 1000 === 999) await producer.flush();
    }
    await producer.close();
    expect(await usedMemory()).toBeGreaterThan(before + (padding > 0 ? 20 : 5) * MIB);

    const workers = await testWorkers(db, queue);
    const queues = openQueues(queue);
    await drained(queues);
    await Promise.all([workers.stop(10_000), queues.close()]);
    const [row] = await db.sql(`SELECT (SELECT count(*) FROM "MemoryAccess")::int AS n`);
    expect(row.n).toBe(count / EVENT_KINDS.length);
    expect((await usedMemory()) - before).toBeLessThan(10 * MIB);
    admin.disconnect();
    await Promise.all([server.stop(), db.drop()]);
  });
});
