import { expect, it } from 'vitest';

import type { RunStatus } from '../../src/backfill/status.ts';
import { progressLine } from '../../src/cli/progress.ts';

const run: RunStatus = {
  table: 'interaction-memories',
  status: 'running',
  phase: 'undo',
  rows: 10_000_000,
  passed: 4_530_000,
  checked: 0,
  changed: 4_530_000,
  quarantined: 0,
  chunks: 100,
  revivals: 0,
  remaining: null,
  differing: null,
  reason: null,
  elapsedMs: 300_000,
  fraction: 0.453,
  etaMs: 3_540_000,
};

it.each([
  [79, run, 'interaction-memories ████░░░░░  45.3%  rolling back  59m 0s left  15,100/s'],
  [
    119,
    run,
    'interaction-memories ███████████░░░░░░░░░░░░░  45.3%  rolling back  59m 0s left  15,100/s  4,530,000 rows',
  ],
  [
    79,
    { ...run, reason: 'held: a session has waited for a lock for 123456 ms, over 1000' },
    'interaction-memories  45.3%  held: a session has waited for a lock for 123456 …',
  ],
  [40, run, 'interaction-memories ████░░░░  45.3%'],
])('a line of %i columns', (columns, status, line) => {
  expect(progressLine(status, columns)).toBe(line);
  expect(line.length).toBeLessThanOrEqual(columns);
});
