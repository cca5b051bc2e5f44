import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from 'vitest';

import type { Finding } from '../src/doctor/finding.ts';
import { createTestDatabase, testPrefix, type TestDatabase } from './support/database.ts';
import { eventId, sample } from './support/events.ts';
import { removeFolder } from './support/files.ts';
import { testProducer } from './support/pipeline.ts';
import { run } from './support/process.ts';
import { queuedIds, segmentFiles } from './support/spools.ts';

let folder: string;
let db: TestDatabase;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'annals-stray-'));
  db = await createTestDatabase();
});
afterAll(async () => {
  await db.drop();
  removeFolder(folder);
});

it('what was spooled for an address that has changed is told of, and sent to the new one', async () => {
  const spool = join(folder, 'spool');
  const prefix = testPrefix();
  const producer = testProducer(
    { kind: 'redis', url: 'redis://me:secret@127.0.0.1:1', prefix },
    { env: { ANNALS_SPOOL_DIR: spool, ANNALS_SPOOL_AFTER_MS: '200' } },
  );
  for (let n = 0; n < 50; n++) producer.emit('memory-access', sample('memory-access', n) as never);
  await producer.flush();
  await producer.close({ deadlineMs: 300 });
  const [name = ''] = readdirSync(spool);
  const stray = join(spool, name);
  const [file = ''] = segmentFiles(spool);
  const bytes = readFileSync(file).length;
  expect(readFileSync(join(stray, 'destination'), 'utf8')).toBe(`redis 127.0.0.1:1 ${prefix}\n`);

  const annals = (...args: string[]) =>
    run(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', ...args], {
      env: {
        DATABASE_URL: db.url,
        REDIS_URL: undefined,
        ANNALS_QUEUE_BACKEND: 'postgres',
        ANNALS_QUEUE_PREFIX: prefix,
        ANNALS_DATA_DIR: join(folder, 'data'),
        ANNALS_SPOOL_DIR: spool,
        ANNALS_LOG_LEVEL: 'info',
      },
      timeoutMs: 60_000,
    });
  const finding = async () => {
    const { stdout } = await annals('doctor', '--json');
    const { findings } = JSON.parse(stdout) as { findings: Finding[] };
    return findings.find(({ check }) => check === 'spool of other queues');
  };
  expect(await finding()).toEqual({
    check: 'spool of other queues',
    status: 'warning',
    found: `events are left for other queues: ${bytes} bytes for redis 127.0.0.1:1 ${prefix} in ${stray}`,
    advice: expect.stringContaining('annals emit --spool'),
  });
  const audit = await annals('audit', '--wait', '0');
  expect(audit.stdout + audit.stderr).toContain(stray);

  const sent = await annals('emit', '--spool', stray, '--json');
  expect(sent.stderr).not.toContain('secret');
  expect({ code: sent.code, summary: JSON.parse(sent.stdout) }).toEqual({
    code: 0,
    summary: { sent: 50, damaged: 0, bytesLeft: 0 },
  });
  expect(segmentFiles(spool)).toEqual([]);
  const location = { kind: 'postgres' as const, url: db.url, prefix };
  expect(await queuedIds(location)).toEqual(Array.from({ length: 50 }, (_, n) => eventId(n, 1)));
  expect(await finding()).toMatchObject({ status: 'ok' });

  const wrong = await annals('emit', '--spool', join(folder, 'nowhere'));
  expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining('is not a folder') });
});
