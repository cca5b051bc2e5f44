import { once } from 'node:events';
import { mkdtempSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeEach, expect, it } from 'vitest';

import type { QueueLocation } from '../src/queues/backend.ts';
import { describeRedis, redisUrl, testPrefix } from './support/database.ts';
import { sample } from './support/events.ts';
import { removeFolder } from './support/files.ts';
import { testProducer } from './support/pipeline.ts';
import { spawnTsx } from './support/process.ts';
import type { ProducerJob } from './support/producerMain.ts';
import { expectBalanced, queuedIds, reaches, segmentFiles } from './support/spools.ts';

const MAX_BYTES = 2 * 2 ** 20;
/** They take more than four fifths of that on disk. */
const DEAD_EVENTS = 8000;

const folder = mkdtempSync(join(tmpdir(), 'annals-adoption-'));
afterAll(() => removeFolder(folder));

let spool: string;
let location: QueueLocation;
beforeEach(() => {
  spool = mkdtempSync(join(folder, 'test-'));
  location = { kind: 'redis', url: redisUrl(), prefix: testPrefix() };
});
const env = () => ({
  ANNALS_SPOOL_DIR: spool,
  ANNALS_SPOOL_AFTER_MS: '200',
  ANNALS_SPOOL_MAX_BYTES: String(MAX_BYTES),
});
/** The same queues by their address, which do not let us in. */
const cutOff = () => ({
  ...location,
  url: Object.assign(new URL(location.url), { username: 'nobody', password: 'wrong' }).href,
});

/** Leaves a full spool of a process that was killed. */
async function crash(): Promise<void> {
  const job: ProducerJob = { queue: cutOff(), mode: 'flush', events: DEAD_EVENTS };
  const child = spawnTsx('test/support/producerMain.ts', [JSON.stringify(job)], env());
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'exit');
}
const onDisk = () => segmentFiles(spool).reduce((sum, file) => sum + statSync(file).size, 0);

describeRedis('a full spool of a dead producer', () => {
  it('costs a live one none of its own events', async () => {
    await crash();
    expect(onDisk()).toBeGreaterThan(MAX_BYTES * 0.8);
    const producer = testProducer(location, { env: env(), durability: 'sync' });
    for (let n = 0; n < 4000; n++) {
      producer.emit('transition', sample('transition', n) as never);
      if (n % 100 === 0) await sleep(50);
    }
    expect(producer.stats()).toMatchObject({ accepted: 4000, dropped: 0 });
    await reaches(producer, ({ adopted }) => adopted === DEAD_EVENTS);
    await producer.close();
    expect(producer.stats()).toMatchObject({ delivered: 4000, dropped: 0, spooledBytes: 0 });
    expect(new Set(await queuedIds(location)).size).toBe(DEAD_EVENTS + 4000);
    expect(segmentFiles(spool)).toEqual([]);
  });

  it('is not the beginning of a full disk, however often producers die', async () => {
    await Promise.all([crash(), crash(), crash()]);
    const left = onDisk();
    expect(left).toBeGreaterThan(2 * MAX_BYTES);
    const last = testProducer(cutOff(), { env: env(), durability: 'sync' });
    // It takes over what it may, and knows of the rest.
    await reaches(last, ({ spooledBytes }) => spooledBytes > MAX_BYTES);
    expect(last.stats().spooledBytes).toBeLessThan(2 * MAX_BYTES);
    await sleep(500);
    for (let n = 0; n < 4000; n++) last.emit('transition', sample('transition', n) as never);
    expectBalanced(last);
    expect(onDisk()).toBe(left);
    await last.close({ deadlineMs: 200 }).catch(() => {});

    const next = testProducer(location, { env: env() });
    await next.close({ deadlineMs: 40_000 });
    expect(next.stats()).toMatchObject({ adopted: 3 * DEAD_EVENTS, spooledBytes: 0 });
    expect(segmentFiles(spool)).toEqual([]);
  });
});
