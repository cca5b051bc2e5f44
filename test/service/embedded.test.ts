import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, expect, test } from 'vitest';

import { run } from '../support/process.ts';
import { removeFolder } from '../support/files.ts';

const dataDir = mkdtempSync(join(tmpdir(), 'annals-service-'));
afterAll(() => removeFolder(dataDir));

test('with nothing configured the service makes, migrates and uses an embedded database', async () => {
  const example = () =>
    run('npx', ['ts-node', 'src/services/examples/enhancedSchemaExample.ts'], {
      env: { DATABASE_URL: undefined, REDIS_URL: undefined, ANNALS_DATA_DIR: dataDir },
      timeoutMs: 50_000,
    });
  const first = await example();
  expect(first).toMatchObject({ code: 0 });
  expect(first.stdout).toMatch(/A session hierarchy[^]*sessions +2\n[^]*A memory/);
  // What the first run stored is there for the second.
  expect((await example()).stdout).toMatch(/sessions +4\n/);
  // The server goes a moment after the last process that used it.
  await expect
    .poll(() => existsSync(join(dataDir, 'postgres/postmaster.pid')), { timeout: 20_000 })
    .toBe(false);
});
