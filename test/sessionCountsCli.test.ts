import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { startBoard, type Board } from '../src/board/board.ts';
import { createLogger } from '../src/logger.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { testConfig } from './support/pipeline.ts';
import { run, spawnTsx } from './support/process.ts';

let db: TestDatabase;
let board: Board;
let env: Record<string, string | undefined>;

beforeAll(async () => {
  db = await createTestDatabase();
  await db.sql(
    `INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "updatedAt", "totalSessions")
     VALUES ('right', 'user', '', '[]', '{}', now(), 0), ('wrong', 'user', '', '[]', '{}', now(), 3)`,
  );
  env = {
    DATABASE_URL: db.url,
    REDIS_URL: undefined,
    ANNALS_QUEUE_BACKEND: 'postgres',
    ANNALS_LOG_LEVEL: 'info',
    ANNALS_LOG_FORMAT: 'json',
  };
  const config = testConfig({ ANNALS_BOARD_PORT: '0' });
  const queue = { kind: 'postgres', url: db.url, prefix: 'annals' } as const;
  board = await startBoard({ databaseUrl: db.url, queue, config, log: createLogger(config) });
});
afterAll(async () => {
  await board.stop(5000);
  await db.drop();
});

/** Sessions by which the last recount found figures wrong, as the board tells. */
const drift = async () => {
  const text = await (await fetch(`${board.url}/metrics`)).text();
  return /^annals_session_counts_drift_sessions (\d+)$/m.exec(text)?.[1];
};

const annals = (...args: string[]) =>
  run(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', ...args], { env });

it('session-counts run heals, and says what it healed', async () => {
  const first = await annals('session-counts', 'run');
  expect(first).toMatchObject({ code: 0, stderr: '' });
  expect(first.stdout).toMatch(/agents checked +corrected +sessions off\n2 +1 +3/);
  await expect.poll(drift).toBe('3');
  const second = await annals('session-counts', 'run', '--json');
  expect(JSON.parse(second.stdout)).toEqual({ checked: 2, agents: 0, drift: 0 });
  expect((await annals('session-counts', '--help')).stdout).toContain('run');
  expect((await annals('session-counts', 'run', '--help')).stdout).toContain('Examples:');
});

it('a worker does so as scheduled, and says what it healed', async () => {
  await db.sql(`UPDATE "AI_Agent" SET "totalSessions" = 7 WHERE "id" = 'right'`);
  const worker = spawnTsx('src/cli/main.ts', ['worker'], {
    ...env,
    ANNALS_SESSION_COUNTS_SCHEDULE: '* * * * * *',
  });
  let log = '';
  worker.stderr.setEncoding('utf8').on('data', (text: string) => (log += text));
  while (!/"drift":7\b/.test(log)) await sleep(50);
  const line = log.split('\n').find((each) => each.includes('"drift":7')) ?? '';
  expect(JSON.parse(line)).toMatchObject({
    msg: 'session-counts done',
    queue: 'session-counts',
    job: expect.stringMatching(/^repeat:session-counts:/),
    checked: 2,
    agents: 1,
  });
  await expect.poll(drift).toMatch(/^[07]$/); // each second's run finds less
  worker.kill('SIGTERM');
  expect(await once(worker, 'exit')).toEqual([0, null]);
});
