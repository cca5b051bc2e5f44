import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Redis } from 'ioredis';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';

import { KEEP_MS } from '../src/producers/outlet.ts';
import type { Producer } from '../src/producers/producer.ts';
import type { QueueLocation } from '../src/queues/backend.ts';
import { openRedis } from '../src/queues/connection.ts';
import { describeRedis, testPrefix } from './support/database.ts';
import { sample } from './support/events.ts';
import { removeFolder } from './support/files.ts';
import { testProducer } from './support/pipeline.ts';
import { onPath } from './support/programs.ts';
import { startRedis, type TestServer } from './support/servers.ts';
import { reaches } from './support/spools.ts';

/** The first server on the PATH that can say what it has on disk (WAITAOF). */
const teller = ['redis-server', 'valkey-server'].map(onPath).find((program) => {
  if (!program) return false;
  const version = execFileSync(program, ['--version'], { encoding: 'utf8' });
  const [, major, minor] = /v=(\d+)\.(\d+)/.exec(version) ?? [];
  return Number(major) > 7 || (Number(major) === 7 && Number(minor) >= 2);
});

/** Milliseconds between two looks at what can be removed, and for the answer to a question. */
const SLACK_MS = 1500;

const folder = mkdtempSync(join(tmpdir(), 'annals-on-disk-'));
afterAll(() => removeFolder(folder));

let server: TestServer;
let location: QueueLocation;
let redis: Redis;
let producer: Producer;

const setUp = (program?: string) => async () => {
  server = await startRedis(program === undefined ? {} : { program });
  location = { kind: 'redis', url: server.url, prefix: testPrefix() };
  redis = openRedis(location);
  await once(redis, 'ready');
  producer = testProducer(location, {
    durability: 'sync',
    env: { ANNALS_SPOOL_DIR: mkdtempSync(join(folder, 'test-')) },
  });
};
afterEach(async () => {
  await producer.close({ deadlineMs: 500 });
  redis.disconnect();
  await server.stop();
});

/** Emits, and tells for how many milliseconds the spool kept what Redis had taken. */
async function keptMs(): Promise<number> {
  for (let n = 0; n < 100; n++) producer.emit('memory-access', sample('memory-access', n) as never);
  await reaches(producer, ({ buffered }) => buffered === 0);
  const deliveredAt = performance.now();
  expect(producer.stats().spooledBytes).toBeGreaterThan(0);
  await reaches(producer, ({ spooledBytes }) => spooledBytes === 0);
  return performance.now() - deliveredAt;
}
const calls = async () => (await redis.info('commandstats')).includes('cmdstat_waitaof:calls=');

describeRedis('a Redis that cannot say what it has on its disk', () => {
  beforeEach(setUp());

  it.skipIf(teller === onPath('redis-server'))('has its events kept for 5 s', async () => {
    expect(await keptMs()).toBeGreaterThan(KEEP_MS.unsaid * 0.9);
  });
});

const needed = 'a redis-server (7.2 or later) or valkey-server on the PATH';
describe.skipIf(!teller)(`a Redis that can say it: needs ${needed}`, () => {
  beforeEach(setUp(teller));

  it('is asked, when its word means something', async () => {
    const ms = await keptMs();
    expect(ms).toBeGreaterThan(KEEP_MS.said * 0.9);
    expect(ms).toBeLessThan(KEEP_MS.said + 1000 + SLACK_MS); // an fsync a second
    expect(await calls()).toBe(true);
  });

  it('but never does (appendfsync no) counts as one that cannot', async () => {
    await redis.config('SET', 'appendfsync', 'no');
    const ms = await keptMs();
    expect(ms).toBeGreaterThan(KEEP_MS.unsaid * 0.9);
    expect(ms).toBeLessThan(KEEP_MS.unsaid + SLACK_MS);
    expect(await calls()).toBe(true);
    const beganAt = performance.now();
    producer.emit('memory-access', sample('memory-access', 100) as never);
    await producer.close({ deadlineMs: 20_000 });
    expect(performance.now() - beganAt).toBeLessThan(KEEP_MS.unsaid + SLACK_MS);
    expect(producer.stats()).toMatchObject({ delivered: 101, spooledBytes: 0 });
  });

  it('but takes no second connection counts as one that cannot', async () => {
    producer.emit('memory-access', sample('memory-access', 101) as never);
    await reaches(producer, ({ delivered }) => delivered === 1);
    await redis.config('SET', 'maxclients', 2); // this one's, and the producer's
    const ms = await keptMs();
    expect(ms).toBeLessThan(KEEP_MS.unsaid + SLACK_MS);
  });
});
