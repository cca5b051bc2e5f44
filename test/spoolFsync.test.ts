import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, describe, expect, inject, it } from 'vitest';

import { startProxy } from '../bench/chaos/proxy.ts';
import { redisUrl, testPrefix } from './support/database.ts';
import { removeFolder } from './support/files.ts';
import { onPath } from './support/programs.ts';
import { start } from './support/process.ts';
import type { ProducerJob } from './support/producerMain.ts';
import { queuedIds } from './support/spools.ts';

const folder = mkdtempSync(join(tmpdir(), 'annals-fsync-'));
afterAll(() => removeFolder(folder));

/** Has the n-th fsync of a program fail, once, as the kernel does it; each thread counts its own. */
const failing = (nth: number) =>
  `-f -qq -o /dev/null -e trace=fsync -e inject=fsync:error=EIO:when=${nth}`.split(' ');
/** Containers may forbid tracing. */
const canTrace =
  onPath('strace') !== undefined && spawnSync('strace', [...failing(1), 'true']).status === 0;

describe.skipIf(!canTrace || inject('redisUrl') === null)(
  'a disk that fails once: needs strace and redis-server on the PATH',
  () => {
    it.each([
      ['a file', 4],
      ['its folder', 1],
    ])('at %s, has flush refused until the queue has the events', async (_, nth) => {
      const queue = { kind: 'redis' as const, url: redisUrl(), prefix: testPrefix() };
      const proxy = await startProxy(queue.url);
      proxy.refuse();
      const job: ProducerJob = { queue: { ...queue, url: proxy.url }, mode: 'insist', events: 10 };
      const args = ['--import', 'tsx', 'test/support/producerMain.ts', JSON.stringify(job)];
      const child = start('strace', [...failing(nth), process.execPath, ...args], {
        env: {
          ANNALS_SPOOL_DIR: mkdtempSync(join(folder, 'test-')),
          ANNALS_SPOOL_AFTER_MS: '200',
          UV_THREADPOOL_SIZE: '1',
        },
      });
      const exited = once(child, 'exit');
      let said = '';
      child.stdout.on('data', (text: Buffer) => (said += text.toString()));
      await expect.poll(() => said, { timeout: 60_000 }).toMatch(/ed\n/);
      await sleep(1000);
      expect(said).toMatch(/^(refused\n){2,}$/);
      proxy.admit();
      await exited;
      expect(said).toMatch(/^(refused\n)+flushed\n$/);
      expect(new Set(await queuedIds(queue)).size).toBe(10);
      proxy.close();
    });
  },
);
