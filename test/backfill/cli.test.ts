import { once } from 'node:events';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { applyMigrations } from '../../src/database/migrations.ts';
import { createEmptyDatabase } from '../support/emptyDatabase.ts';
import { run, spawnTsx } from '../support/process.ts';
import { seedPlain } from './fixture.ts';

let db: Awaited<ReturnType<typeof createEmptyDatabase>>;
let env: Record<string, string | undefined>;

beforeAll(async () => {
  db = await createEmptyDatabase();
  await applyMigrations(db.url);
  await seedPlain(db, 1000);
  env = {
    DATABASE_URL: db.url,
    REDIS_URL: undefined,
    ANNALS_QUEUE_BACKEND: 'postgres',
    ANNALS_LOG_LEVEL: 'error',
  };
});
afterAll(() => db.drop());

const backfill = (...args: string[]) =>
  run(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', 'backfill', ...args], { env });

it(
  'is steered from the command line, and the script of the guide completes it',
  { timeout: 90_000 },
  async () => {
    expect((await backfill('status')).stdout).toContain('No backfill has been started.');
    expect(await backfill('verify')).toMatchObject({ code: 1 });
    expect(await backfill('start', 'nonsense')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('takes agent-sessions, module-states'),
    });
    const dry = await backfill('start', '--dry-run', 'agent-sessions');
    expect(dry).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('agent-sessions: 1000 of 1000 sampled rows need work'),
    });
    expect(dry.stdout).toContain('Nothing was changed.');

    // Ctrl-C leaves the run as it is, and says so.
    const script = spawnTsx(
      'src/cli/main.ts',
      ['backfill', 'start', '--max-chunk-rows', '10', '--rest-ms', '50'],
      env,
    );
    let said = '';
    script.stdout.on('data', (text) => (said += String(text)));
    const exit = once(script, 'exit');
    for await (const text of script.stderr) if (String(text).includes('filling in')) break;
    script.kill('SIGINT');
    expect(await exit).toEqual([1, null]);
    expect(said).toContain('The backfill goes on where an `annals worker` runs');
    expect((await backfill('status', '--json')).stdout).toContain('"status":"running"');
    expect((await backfill('cancel')).stdout).toContain('agent-sessions: cancelled');
    expect((await backfill('cancel')).stdout).toContain('agent-sessions: nothing to cancel');

    const guide = await run('npx', ['ts-node', 'src/scripts/applySchemaEnhancements.ts'], { env });
    expect(guide, guide.stderr).toMatchObject({ code: 0 });
    expect(guide.stdout).toMatch(/^module-states +completed +1,000/m);
    expect(await backfill('verify')).toMatchObject({ code: 0 });
  },
);
