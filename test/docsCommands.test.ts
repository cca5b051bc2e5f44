import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { sample } from './support/events.ts';
import { removeFolder } from './support/files.ts';
import { seedParents } from './support/pipeline.ts';
import { ROOT, run, start } from './support/process.ts';

// Only `npx annals …`: what `npm run` starts is for development, and has tests of its own.

const PAGES = [
  'README.md',
  ...readdirSync(join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md') && name !== 'SCHEMA_MIGRATION_GUIDE.md')
    .map((name) => `docs/${name}`),
];

/** Every command that a page shows, once, with its words as a shell would have them. */
const commands = new Map<string, string[]>();
for (const page of PAGES) {
  const text = readFileSync(join(ROOT, page), 'utf8');
  for (const [, found = ''] of text.matchAll(
    /npx annals\s([^`|#;&)\n]*(?:\n[^`|#;&)\n]+(?=`))?)/g,
  )) {
    const words = (found.match(/'[^']*'|\S+/g) ?? []).map((word) => word.replaceAll("'", ''));
    commands.set(words.join(' '), words);
  }
}

/** These run until they are told to stop. */
const SERVICES = ['start', 'worker', 'board'];

describe('commands of the docs', () => {
  let db: TestDatabase;
  let folder: string;
  let env: Record<string, string | undefined>;

  beforeAll(async () => {
    db = await createTestDatabase();
    await seedParents(db);
    folder = mkdtempSync(join(tmpdir(), 'annals-docs-'));
    const event = { kind: 'metrics', ...sample('metrics', 1) };
    writeFileSync(join(folder, 'events.ndjson'), `${JSON.stringify(event)}\n`);
    const messages = [{ role: 'user', content: 'Hello' }];
    const conversation = { task_id: 1, trial: 0, reward: 1, user_id: 'ann', messages };
    writeFileSync(join(folder, 'conversations.jsonl'), `${JSON.stringify(conversation)}\n`);
    mkdirSync(join(folder, 'FOLDER'));
    env = {
      DATABASE_URL: db.url,
      REDIS_URL: undefined,
      ANNALS_QUEUE_BACKEND: 'postgres',
      ANNALS_BOARD_PORT: '0',
      ANNALS_SPOOL_DIR: join(folder, 'spool'),
      ANNALS_DATA_DIR: join(folder, 'data'),
    };
  });
  afterAll(async () => {
    removeFolder(folder);
    await db.drop();
  });

  const cli = ['--import', import.meta.resolve('tsx'), join(ROOT, 'src/cli/main.ts')];

  it('are found', () => {
    expect(commands.size).toBeGreaterThan(20);
    for (const known of ['doctor', 'emit events.ndjson', 'session-counts run', 'board']) {
      expect([...commands.keys()]).toContain(known);
    }
  });

  it.each([...commands.values()].filter(([name = '']) => SERVICES.includes(name)))(
    'annals %s runs until it is told to stop',
    async (...words) => {
      const child = start(process.execPath, [...cli, ...words], { cwd: folder, env });
      let said = '';
      child.stdout.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
      const exited = once(child, 'exit');
      while (!said.includes('Ctrl-C stops') && child.exitCode === null) await sleep(50);
      child.kill('SIGTERM');
      expect(await exited).toEqual([0, null]);
    },
    30_000,
  );

  it.each(
    Array.from(commands, ([text, words]) => ({ text, words })).filter(
      ({ words: [name = ''] }) => !SERVICES.includes(name),
    ),
  )(
    'annals $text is right usage, and runs',
    async ({ words }) => {
      const given = words.map((word) =>
        word.replace(
          /^\[?FILE\]?$/,
          words[0] === 'replay' ? 'conversations.jsonl' : 'events.ndjson',
        ),
      );
      // psql need not be on this machine; any program will do.
      const args = given.map((word) => (word === 'psql' ? 'env' : word));
      const { code, stdout, stderr } = await run(process.execPath, [...cli, ...args], {
        cwd: folder,
        env,
        timeoutMs: 60_000,
      });
      // Speed is all that counts for the tests' PostgreSQL: `doctor` rightly complains of it. And the
      // dead letter that the docs name is not there, as `show` says.
      const isWrong = words[0] === 'doctor' || (words[1] === 'show' && words.includes('--id'));
      expect(code, stderr).toBe(isWrong ? 1 : 0);
      expect(stderr).not.toMatch(/^ +at /m);
      expect(stdout + stderr).not.toBe('');
    },
    70_000,
  );
});
