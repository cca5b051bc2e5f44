import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, inject, it } from 'vitest';

import { makeSchedule } from '../bench/chaos/schedule.ts';
import { run } from './support/process.ts';
import { removeFolder } from './support/files.ts';

describe('the schedule of faults', () => {
  it('depends on nothing but the seed and the back end', () => {
    expect(makeSchedule(7, 20, true)).toEqual(makeSchedule(7, 20, true));
    expect(makeSchedule(8, 20, true)).not.toEqual(makeSchedule(7, 20, true));
  });

  it('has every fault once before any comes again', () => {
    const faults = makeSchedule(1, 20, true)
      .flat()
      .map(({ fault }) => fault);
    expect(new Set(faults.slice(0, 13)).size).toBe(13);
    expect(
      makeSchedule(1, 20, false)
        .flat()
        .some(({ fault }) => fault.includes('Redis')),
    ).toBe(false);
  });
});

// In a small size; `npm run chaos` does 20 rounds on each back end.
describe.each(['redis', 'postgres'])('processes and servers struck, queues on %s', (queue) => {
  it.skipIf(queue === 'redis' && inject('redisUrl') === null)(
    'loses, doubles and miscounts nothing, and burns no attempt',
    { timeout: 300_000 },
    async () => {
      const folder = mkdtempSync(join(tmpdir(), 'annals-test-'));
      const report = join(folder, 'report.json');
      // A seed whose first round has short faults only.
      const args = ['--import', 'tsx', 'bench/chaos/main.ts', '--rounds', '1', '--queue', queue];
      const { code, stdout, stderr } = await run(
        process.execPath,
        [...args, '--seed', '7', '--report', report],
        { timeoutMs: 280_000 },
      );
      expect(code, stdout + stderr).toBe(0);
      expect(JSON.parse(readFileSync(report, 'utf8'))).toMatchObject({
        ok: true,
        rounds: 1,
        lost: 0,
        duplicated: 0,
        counterErrors: 0,
        deadLetters: 0,
        attemptsBurned: 0,
      });
      removeFolder(folder);
    },
  );
});
