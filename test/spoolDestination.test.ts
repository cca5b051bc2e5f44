import { createHash } from 'node:crypto';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

import { afterAll, beforeAll, expect, it, test } from 'vitest';

import { describeDestination, spoolFolder } from '../src/producers/spool/destination.ts';
import type { QueueLocation } from '../src/queues/backend.ts';
import {
  createTestDatabase,
  describeRedis,
  redisUrl,
  testPrefix,
  type TestDatabase,
} from './support/database.ts';
import { eventId, sample } from './support/events.ts';
import { removeFolder } from './support/files.ts';
import { testConfig, testProducer } from './support/pipeline.ts';
import { queuedIds, segmentFiles } from './support/spools.ts';

let folder: string;
let db: TestDatabase;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'annals-destination-'));
  db = await createTestDatabase();
});
afterAll(async () => {
  await db.drop();
  removeFolder(folder);
});

const config = testConfig();
const nameOf = (kind: QueueLocation['kind'], url: string) =>
  basename(spoolFolder(config, { kind, url, prefix: 'annals' }));

test.each([
  ['postgres', 'postgresql://u@localhost/annals', ['host=/cloudsql/A', 'host=/cloudsql/B']],
  ['postgres', 'postgresql://u@localhost:5432/annals', ['port=5433', 'host=db&port=5433']],
  ['redis', 'redis://h', ['db=1', 'db=2', 'port=1', 'path=/run/a.sock', 'path=/run/b.sock']],
  ['redis', 'redis:///', ['host=a', 'host=b']],
] as const)('%s queues at %s are told apart by %j', (kind, url, queries) => {
  const names = [url, ...queries.map((query) => `${url}?${query}`)].map((one) => nameOf(kind, one));
  expect(new Set(names).size).toBe(names.length);
});

test.each([
  ['postgres', 'db/annals', 'postgresql://me:secret@db/annals'],
  ['postgres', 'db:5433/annals', 'postgresql://db:5433/annals?sslmode=require&dbname=x&host='],
  ['redis', 'h:6380/2', 'redis://me:secret@h:6380/2?db=3&host=x&port=1&family=6'],
  ['redis', 'h', 'rediss://h?family=6'],
] as const)('the folder of %s queues at %s keeps its name', (kind, place, url) => {
  const hash = createHash('sha256').update([kind, place, 'annals'].join('\n')).digest('hex');
  expect(nameOf(kind, url)).toBe(hash.slice(0, 16));
});

it('says what it is for, without credentials', () => {
  const url = 'postgresql://me:secret@localhost/annals?host=/cloudsql/A&user=me&password=secret';
  const location = { kind: 'postgres' as const, url, prefix: 'p' };
  expect(describeDestination(config, location)).toBe(
    'postgres localhost/annals?host=/cloudsql/A p',
  );
});

/** What is spooled for `away`, where nobody is, must not come to `there`. */
async function expectApart(away: QueueLocation, there: QueueLocation): Promise<void> {
  const spool = mkdtempSync(join(folder, 'spool-'));
  const emit = async (
    queue: QueueLocation,
    n: number,
    deadlineMs: number,
    spoolAfterMs: number,
  ) => {
    const producer = testProducer(queue, {
      env: { ANNALS_SPOOL_DIR: spool, ANNALS_SPOOL_AFTER_MS: String(spoolAfterMs) },
    });
    producer.emit('memory-access', sample('memory-access', n) as never);
    await producer.close({ deadlineMs });
    return producer.stats();
  };
  expect(await emit(away, 1, 500, 200)).toMatchObject({ spooled: 1 });
  const [left] = segmentFiles(spool);
  expect(await emit(there, 2, 10_000, 10_000)).toMatchObject({ delivered: 1, adopted: 0 });
  expect(segmentFiles(spool)).toEqual([left]);
  expect(await queuedIds(there)).toEqual([eventId(2, 1)]);
}

it('events for a PostgreSQL that ?host= names do not come to another', async () => {
  const url = new URL(db.url);
  url.searchParams.set('host', url.hostname);
  url.searchParams.set('port', url.port);
  const there = { kind: 'postgres' as const, url: url.href, prefix: testPrefix() };
  url.searchParams.set('host', join(folder, 'nowhere'));
  await expectApart({ ...there, url: url.href }, there);
});

describeRedis('events for a Redis', () => {
  it('that ?path= names do not come to another', async () => {
    const there = { kind: 'redis' as const, url: redisUrl(), prefix: testPrefix() };
    await expectApart({ ...there, url: `${there.url}?path=${join(folder, 'no.sock')}` }, there);
  });
});
