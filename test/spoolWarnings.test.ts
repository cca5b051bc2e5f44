import { once } from 'node:events';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeEach, expect, it } from 'vitest';

import type { QueueLocation } from '../src/queues/backend.ts';
import { describeRedis, redisUrl, testPrefix } from './support/database.ts';
import { removeFolder } from './support/files.ts';
import { spawnTsx } from './support/process.ts';
import type { ProducerJob } from './support/producerMain.ts';
import { segmentFiles } from './support/spools.ts';

/* What the process of an agent says by itself, whose producer was given no callbacks. */

const folder = mkdtempSync(join(tmpdir(), 'annals-warnings-'));
afterAll(() => removeFolder(folder));
let spool: string;
beforeEach(() => {
  spool = mkdtempSync(join(folder, 'test-'));
});
const nowhere: QueueLocation = { kind: 'redis', url: 'redis://127.0.0.1:1', prefix: 'annals' };

/** Emits, flushes and dies when it has said `last`; returns its warnings. */
async function warnings(
  queue: QueueLocation,
  events: number,
  last: string,
  env: Record<string, string> = {},
): Promise<string[]> {
  const job: ProducerJob = { queue, mode: 'flush', events };
  const settings = { ANNALS_SPOOL_DIR: spool, ANNALS_SPOOL_AFTER_MS: '200', ...env };
  const child = spawnTsx('test/support/producerMain.ts', [JSON.stringify(job)], settings);
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (text: Buffer) => (said += text.toString()));
  }
  await expect.poll(() => said, { timeout: 40_000 }).toContain(last);
  child.kill('SIGKILL');
  await once(child, 'exit');
  return said.split('\n').filter((line) => line.includes('Warning'));
}

it('is nothing where all is well', async () => {
  expect(await warnings(nowhere, 100, 'flushed')).toEqual([]);
});

it('is once that events were dropped', async () => {
  const bound = String(2 ** 20);
  const env = { ANNALS_SPOOL_MAX_BYTES: bound, ANNALS_BUFFER_MAX_BYTES: bound };
  const said = await warnings(nowhere, 20_000, 'dropped', env);
  expect(said).toEqual([expect.stringMatching(/AnnalsWarning: events were dropped/)]);
});

it('is once that the spool cannot be used', async () => {
  writeFileSync(join(spool, 'file'), '');
  const env = { ANNALS_SPOOL_DIR: join(spool, 'file'), ANNALS_BUFFER_MAX_EVENTS: '10' };
  expect(await warnings(nowhere, 100, 'dropped', env)).toEqual([
    expect.stringMatching(/AnnalsWarning: the spool \S+ cannot be used/),
    expect.stringMatching(/AnnalsWarning: events were dropped/),
  ]);
});

describeRedis('with a queue', () => {
  it('is once that a spool file is damaged', async () => {
    const queue: QueueLocation = { kind: 'redis', url: redisUrl(), prefix: testPrefix() };
    const url = Object.assign(new URL(queue.url), { username: 'nobody', password: 'wrong' }).href;
    await warnings({ ...queue, url }, 100, 'flushed');
    const [file] = segmentFiles(spool);
    const bytes = readFileSync(file!);
    bytes[bytes.indexOf('memory-1', bytes.length / 2)]! ^= 0x10;
    writeFileSync(file!, bytes);
    const said = await warnings(queue, 0, 'damaged');
    expect(said).toEqual([expect.stringMatching(/AnnalsWarning: the spool file \S+ is damaged/)]);
  });
});
