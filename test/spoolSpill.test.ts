import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeEach, describe, expect, it, vi } from 'vitest';

import type { Producer } from '../src/producers/producer.ts';
import { Spool } from '../src/producers/spool/spool.ts';
import { readRecords } from '../src/producers/spool/record.ts';
import { testPrefix } from './support/database.ts';
import { sample } from './support/events.ts';
import { removeFolder } from './support/files.ts';
import { testProducer } from './support/pipeline.ts';
import { onPath } from './support/programs.ts';
import { run } from './support/process.ts';
import type { ProducerJob } from './support/producerMain.ts';
import { expectBalanced, segmentFiles } from './support/spools.ts';

/*
 * The last spill of a producer: nobody gets another chance to save what is in memory.
 */

const folder = mkdtempSync(join(tmpdir(), 'annals-spill-'));
afterAll(() => removeFolder(folder));
let spool: string;
beforeEach(() => {
  spool = mkdtempSync(join(folder, 'spool-'));
});

const nowhere = { kind: 'redis' as const, url: 'redis://127.0.0.1:1', prefix: testPrefix() };
const open = (env: Record<string, string>, dropped: number[] = []) =>
  testProducer(nowhere, {
    env: { ANNALS_SPOOL_DIR: spool, ...env },
    onDrop: (events) => dropped.push(events),
    onError: () => {},
  });
const emit = (producer: Producer, from: number, to: number, padding = 0) => {
  for (let n = from; n < to; n++) {
    const transitionData = { text: 'x'.repeat(padding) };
    producer.emit('transition', { ...sample('transition', n), transitionData } as never);
  }
};
const spooled = () =>
  segmentFiles(spool).flatMap((file) => readRecords(readFileSync(file)).records);

it('tries a disk that refused a moment ago', async () => {
  const path = join(spool, 'path');
  writeFileSync(path, 'in the way');
  const producer = open({ ANNALS_SPOOL_DIR: path, ANNALS_BUFFER_MAX_EVENTS: '10' });
  emit(producer, 0, 15);
  expect(producer.stats()).toMatchObject({ buffered: 10, dropped: 5 });
  rmSync(path);
  await producer.close({ deadlineMs: 0 });
  expect(producer.stats()).toMatchObject({ buffered: 0, dropped: 5, spooled: 10 });
  expect(spooled()).toHaveLength(10);
});

it('fills a spool up to its bound, and tells of what is lost in what is not', async () => {
  const maxBytes = 2 ** 20;
  const dropped: number[] = [];
  const bounds = { ANNALS_SPOOL_MAX_BYTES: String(maxBytes), ANNALS_PACK_MAX_WAIT_MS: '50' };
  const producer = open(bounds, dropped);
  emit(producer, 0, 20, 100_000); // 2 MB: half of it finds room
  emit(producer, 20, 21);
  await expect(producer.close({ deadlineMs: 0 })).rejects.toThrow(/took 10 events/);
  expectBalanced(producer);
  expect(producer.stats()).toMatchObject({ spooled: 11, dropped: 10 });
  expect(dropped).toEqual([10]);
  expect(spooled().map(({ dropped: lost }) => lost)).toEqual([...Array(10).fill(0), 10]);
});

it('gives up a dead disk without trying it for each event', async () => {
  writeFileSync(join(spool, 'path'), 'in the way');
  const producer = open({ ANNALS_SPOOL_DIR: join(spool, 'path') });
  emit(producer, 0, 20_000);
  const tried = vi.spyOn(Spool.prototype, 'append');
  await expect(producer.close({ deadlineMs: 0 })).rejects.toThrow(/took 20000 events/);
  expect(tried.mock.calls.length).toBeLessThan(100);
  tried.mockRestore();
  expectBalanced(producer);
});

const job: ProducerJob = { queue: nowhere, mode: 'exit', events: 5000 };
const args = ['--import', 'tsx', 'test/support/producerMain.ts', JSON.stringify(job)];

it('at process.exit(), halves what a disk with a limit refuses', async () => {
  // The kernel ends a file at 64 KiB (SIGXFSZ, which would end the process, is ignored).
  const limited = `trap '' XFSZ; ulimit -f 64; exec "$@"`;
  const child = await run('bash', ['-c', limited, 'bash', process.execPath, ...args], {
    env: { ANNALS_SPOOL_DIR: spool },
    timeoutMs: 60_000,
  });
  expect(child).toMatchObject({ code: 0 });
  expect(spooled()).toHaveLength(5000);
  for (const file of segmentFiles(spool)) {
    expect(readFileSync(file).length).toBeLessThanOrEqual(64 * 1024);
  }
});

/** Containers may forbid mounting. */
const mount = (size: string) =>
  spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', spool]).status === 0;
const canMount = (() => {
  spool = mkdtempSync(join(folder, 'probe-'));
  return onPath('mount') !== undefined && mount('64k') && spawnSync('umount', [spool]).status === 0;
})();

describe.skipIf(!canMount)('a small disk: needs the right to mount', () => {
  it('is filled to the brim, and takes what there is room for', async () => {
    mkdirSync(spool, { recursive: true });
    expect(mount('512k')).toBe(true);
    try {
      const child = await run(process.execPath, args, {
        env: { ANNALS_SPOOL_DIR: spool },
        timeoutMs: 60_000,
      });
      expect(child.code).toBe(0);
      const free = spawnSync('df', ['--output=avail', '-k', spool]).stdout.toString();
      expect(Number(/\d+/.exec(free)?.[0])).toBeLessThanOrEqual(32);
      expect(spooled().length).toBeGreaterThan(1000);
      expect(new Set(spooled().map(({ json }) => json)).size).toBe(spooled().length);
    } finally {
      expect(spawnSync('umount', [spool]).status).toBe(0);
    }
  });
});
