import { afterAll, beforeAll, expect, it } from 'vitest';

import { fuzz } from '../bench/fuzz/run.ts';
import { prepareQueues, type QueueLocation } from '../src/queues/backend.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { describeBackends } from './support/pipeline.ts';

describeBackends('random and mutated payloads', (locate) => {
  let db: TestDatabase;
  let queue: QueueLocation;

  beforeAll(async () => {
    db = await createTestDatabase();
    queue = locate(db);
    await prepareQueues(queue);
  });
  afterAll(() => db.drop());

  it(
    'end as rows or as dead letters with a reason, and no worker dies',
    { timeout: 600_000 },
    async () => {
      const report = await fuzz({ databaseUrl: db.url, queue, payloads: 2000, seed: 1 });
      expect(report).toMatchObject({ ok: true, workersDied: 0, lost: [] });
      expect(report.committed).toBeGreaterThan(100);
      expect(report.deadLetters).toBeGreaterThan(100);
    },
  );
});
