import { expect, it } from 'vitest';

import type { RunStatus } from '../../src/backfill/status.ts';
import type { Task } from '../../src/backfill/step.ts';
import { progressLine } from '../../src/cli/progress.ts';
import { openTaskQueue } from '../../src/queues/backend.ts';
import { describeBackends } from '../support/pipeline.ts';
import { createFixture, seedPlain, SESSIONS } from './fixture.ts';

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
  refused: [],
  isUnattended: false,
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

describeBackends('what the board shows of a chunk', (locate) => {
  it('is how far the table is, and what the chunk did', async () => {
    const db = await createFixture(locate);
    await db.work();
    const queue = openTaskQueue<Task>(db.location, 'backfill');
    try {
      await seedPlain(db, 400);
      await db.start({ maxChunkRows: 50, lanes: 1, restMs: 300 }, [SESSIONS]);
      await db.finished([SESSIONS]);
      await expect
        .poll(async () => {
          const jobs = await queue.getJobs(['completed']);
          return jobs.map(({ progress }) => Number(progress)).toSorted((a, b) => a - b);
        })
        .toSatisfy((found: number[]) => {
          const [first = NaN, last = NaN] = [found[0], found.at(-1)];
          return first > 0 && first < 50 && last >= 99;
        });
      const [job] = await queue.getJobs(['completed'], 0, 0, true);
      const { logs } = await queue.getJobLogs(job?.id ?? '');
      expect(logs).toEqual([expect.stringMatching(/^fill agent-sessions: \d+ rows in \d+ ms$/)]);
    } finally {
      await queue.close();
      await db.drop();
    }
  });
});
