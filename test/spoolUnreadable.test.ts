import { mkdirSync, mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { createTestDatabase, testPrefix, type TestDatabase } from './support/database.ts';
import { eventId, sample } from './support/events.ts';
import { removeFolder } from './support/files.ts';
import { testProducer } from './support/pipeline.ts';
import { run } from './support/process.ts';
import { queuedIds, segmentFiles } from './support/spools.ts';

let folder: string;
let db: TestDatabase;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'annals-unreadable-'));
  db = await createTestDatabase();
});
afterAll(async () => {
  await db.drop();
  removeFolder(folder);
});

it('annals emit --spool sends what it can read, names the files that it cannot, and ends', async () => {
  const spool = join(folder, 'spool');
  const env = { ANNALS_SPOOL_DIR: spool, ANNALS_SPOOL_AFTER_MS: '200' };
  const prefix = testPrefix();
  const producer = testProducer({ kind: 'redis', url: 'redis://127.0.0.1:1', prefix }, { env });
  for (let n = 0; n < 10; n++) producer.emit('memory-access', sample('memory-access', n) as never);
  await producer.close({ deadlineMs: 0 });
  const [file = ''] = segmentFiles(spool);
  // Read as root, too, it is an error: a folder where a segment should be.
  mkdirSync(join(dirname(file), '00000000.log'));

  const { code, stdout, stderr } = await run(
    process.execPath,
    [...'--import tsx src/cli/main.ts emit --json --spool'.split(' '), dirname(dirname(file))],
    {
      env: {
        ...env,
        DATABASE_URL: db.url,
        REDIS_URL: undefined,
        ANNALS_QUEUE_BACKEND: 'postgres',
        ANNALS_QUEUE_PREFIX: prefix,
        ANNALS_DATA_DIR: join(folder, 'data'),
      },
      timeoutMs: 30_000,
    },
  );
  const [left = ''] = segmentFiles(spool);
  expect(left).toMatch(/00000000\.log$/);
  expect({ code, summary: JSON.parse(stdout) }).toMatchObject({
    code: 1,
    summary: { sent: 10, damaged: 0 },
  });
  expect(stderr).toContain(`cannot be read (EISDIR`);
  expect(stderr).toContain(left);
  expect(readdirSync(dirname(left))).toEqual(['00000000.log']);
  const location = { kind: 'postgres' as const, url: db.url, prefix };
  expect(await queuedIds(location)).toEqual(Array.from({ length: 10 }, (_, n) => eventId(n, 1)));
});
