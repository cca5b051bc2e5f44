import { setTimeout as sleep } from 'node:timers/promises';

import { expect, it } from 'vitest';

import { timesLeft } from '../../src/backfill/estimate.ts';
import { readStatus } from '../../src/backfill/status.ts';
import { TRANSFORMS } from '../../src/backfill/transforms/index.ts';
import { createFixture, seedPlain, SESSIONS } from './fixture.ts';

const work = (busyMs: number, lanes = 2, priority = 10) => ({ busyMs, lanes, priority });

it.each([
  ['alone, by as many lanes as it has', [work(100, 1)], 2, [100]],
  ['alone, by as many slots as there are', [work(100, 4)], 2, [50]],
  ['lanes take turns of the same length', [work(100), work(100)], 2, [100, 100]],
  ['one goes on with what another leaves', [work(50), work(100)], 2, [50, 75]],
  ['who has priority is served first', [work(100), work(60, 1, 1)], 2, [80, 60]],
  ['and may leave nothing', [work(100), work(60, 2, 1)], 1, [160, 60]],
  ['nothing left', [work(0), work(10, 1)], 1, [0, 10]],
])('when runs end: %s', (_, works, slots, expected) => {
  expect(timesLeft(works, slots, 1)).toEqual(expected);
});

/** Tried again if need be: whatever else comes to work on the machine meanwhile makes any estimate wrong. */
it(
  'from a tenth of the run on, the estimate is right within a fifth',
  { timeout: 240_000, retry: 2 },
  async () => {
    const db = await createFixture();
    try {
      await seedPlain(db, 400_000); // after a tenth of which everything is warm
      await db.sql('VACUUM ANALYZE');
      const startedAt = performance.now();
      await db.start();
      await db.work();
      const names = TRANSFORMS.map(({ name }) => name);
      const estimates: { atMs: number; totalMs: number }[] = [];
      for (;;) {
        const runs = await readStatus(db.pool, names);
        if (runs.every(({ status }) => status === 'completed')) break;
        const atMs = performance.now() - startedAt;
        const left = runs.flatMap(({ status, etaMs }) => (status === 'running' ? [etaMs] : []));
        if (!left.includes(null)) {
          estimates.push({ atMs, totalMs: atMs + Math.max(...left.map(Number)) });
        }
        await sleep(100);
      }
      const tookMs = performance.now() - startedAt;
      const early = estimates
        .map(({ atMs, totalMs }) => ({ at: atMs / tookMs, ratio: totalMs / tookMs }))
        .filter(({ at }) => at > 0.1 && at < 0.33);
      expect(early.length).toBeGreaterThan(10);
      expect(early.filter(({ ratio }) => Math.abs(ratio - 1) > 0.2)).toEqual([]);
    } finally {
      await db.drop();
    }
  },
);

it('the time left counts the rests of chunks that have little to do', async () => {
  const db = await createFixture();
  try {
    await seedPlain(db, 4000);
    await db.sql('VACUUM ANALYZE');
    await db.work();
    await db.start({ maxChunkRows: 50, restMs: 100 }, [SESSIONS]);
    const estimates: Record<string, number> = {};
    let startedAt: number | undefined;
    for (;;) {
      const { status, phase, etaMs } = await db.status(SESSIONS);
      if (status !== 'running') break;
      if (phase !== 'fill' && etaMs !== null) {
        startedAt ??= performance.now();
        estimates[phase] ??= performance.now() - startedAt + etaMs;
      }
      await sleep(20);
    }
    const took = performance.now() - (startedAt ?? NaN);
    expect(took).toBeGreaterThan(3000);
    for (const phase of ['sweep', 'check']) {
      expect((estimates[phase] ?? NaN) / took, phase).toBeGreaterThan(0.6);
      expect((estimates[phase] ?? NaN) / took, phase).toBeLessThan(1.5);
    }
  } finally {
    await db.drop();
  }
});
