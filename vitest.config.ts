import { defineConfig } from 'vitest/config';

/** Tests that hold a time against a bound: they run when the others are done, one after the other. */
const TIMED = [
  'test/backfill/estimate.test.ts',
  'test/outage.test.ts',
  'test/stop.test.ts',
  'test/stopProducer.test.ts',
];

export default defineConfig({
  test: {
    globalSetup: 'test/support/globalSetup.ts',
    pool: 'forks',
    // No bound of ours: how long a machine that is busy with other work may take.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 20_000 } },
    projects: [
      {
        extends: true,
        test: {
          name: 'all',
          include: ['test/**/*.test.ts'],
          exclude: TIMED,
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: { name: 'timed', include: TIMED, maxWorkers: 1, sequence: { groupOrder: 1 } },
      },
    ],
  },
});
