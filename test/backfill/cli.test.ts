import { once } from 'node:events';

import { Command } from 'commander';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { addBackfill } from '../../src/cli/backfill.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { run, spawnTsx } from '../support/process.ts';
import { seedPlain } from './fixture.ts';

let db: TestDatabase;
let env: Record<string, string | undefined>;

beforeAll(async () => {
  db = await createTestDatabase();
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
  run(process.execPath, ['--import', 'tsx', 'src/cli/main.ts', 'backfill', ...args], {
    env,
    timeoutMs: 90_000,
  });

/** No table is wider than a plain terminal; its lines begin with a table's name, or are the head. */
function expectToFit(stdout: string): void {
  const lines = stdout.split('\n').filter((line) => /^(table|[a-z]+-[a-z]+|agents) {2}/.test(line));
  expect(lines.length).toBeGreaterThan(1);
  for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80);
}

/** Starts a command, and sends it SIGINT when it is in the middle of its work. */
async function interrupted(...args: string[]) {
  const child = spawnTsx('src/cli/main.ts', ['backfill', ...args], env);
  let said = '';
  child.stdout.on('data', (text) => (said += String(text)));
  const closed = once(child, 'close');
  let isSent = false;
  for await (const text of child.stderr)
    if (!isSent && String(text).includes('filling in')) isSent = child.kill('SIGINT');
  const [code] = await closed;
  return { code: code as number | null, said };
}

it(
  'is steered from the command line, and the script of the guide completes it',
  { timeout: 180_000 },
  async () => {
    expect((await backfill('status')).stdout).toContain('No backfill has been started.');
    const before = await backfill('verify');
    expect(before).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('Fill them in with: npx annals backfill start'),
    });
    expectToFit(before.stdout);
    const dry = await backfill('start', '--dry-run', 'agent-sessions');
    expect(dry).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('agent-sessions: 1,000 of 1,000 sampled rows need work'),
    });
    expect(dry.stdout).toContain('sessionSource: null → "user"');
    expect(dry.stdout).toContain('Nothing was changed.');

    // Ctrl-C leaves the run as it is, and says so.
    const stopped = await interrupted('start', '--max-chunk-rows', '10', '--rest-ms', '50');
    expect(stopped.code).toBe(1);
    expect(stopped.said).toContain('Go on with:\n  npx annals backfill start\n');
    const status = await backfill('status');
    expect(status.stdout).toMatch(/^agent-sessions +fill \d+\.\d% +1,000 /m);
    expectToFit(status.stdout);
    expect((await backfill('cancel')).stdout).toContain('agent-sessions: cancelled');
    expect((await backfill('cancel')).stdout).toContain('agent-sessions: nothing to cancel');

    const guide = await run('npx', ['ts-node', 'src/scripts/applySchemaEnhancements.ts'], {
      env,
      timeoutMs: 90_000,
    });
    expect(guide, guide.stderr).toMatchObject({ code: 0 });
    expect(guide.stdout).toMatch(/^module-states +completed +1,000/m);
    expect(guide.stdout).toContain('Completed: nothing remaining, nothing differing.');
    expectToFit(guide.stdout);
    expect(await backfill('verify')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('Every row holds what it should hold.'),
    });
  },
);

it(
  'says what a plain program wrote since, and the next start fills it in',
  { timeout: 120_000 },
  async () => {
    await db.sql(
      `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt")
       VALUES ('late', 'user', 'agent-0', 'fact', '{}', 0.5, now())`,
    );
    const late = await backfill('verify', 'interaction-memories');
    expect(late.code).toBe(1);
    expect(late.stdout).toMatch(/^interaction-memories +1 +0 +0$/m);
    expect(late.stdout).toContain('1 row not filled in');
    expect(await backfill('start', 'interaction-memories')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('nothing remaining'),
    });
  },
);

it('rolls back here, and tells by its exit code', { timeout: 180_000 }, async () => {
  // A run that is under way is ended by it.
  expect(await backfill('start', '--detach', 'agents')).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('agents: started\nWorkers do it: npx annals worker'),
  });
  const back = await backfill('rollback', '--json');
  expect(back, back.stderr).toMatchObject({ code: 0 });
  for (const each of JSON.parse(back.stdout) as object[])
    expect(each).toMatchObject({ status: 'rolled_back', fraction: 1 });
  expect(back.stderr).toContain('agent-sessions: rolling back');
  const again = await backfill('rollback');
  expect(again.code).toBe(0);
  expect(again.stdout).toContain('agents: nothing to roll back');
  expect(
    await db.sql(`SELECT count(*)::int AS n FROM "AgentSession" WHERE "sessionSource" IS NOT NULL`),
  ).toEqual([{ n: 0 }]);
});

it('a start does not wait for a run that was paused before', { timeout: 120_000 }, async () => {
  await backfill('start', '--detach', 'agents', 'module-states');
  expect((await backfill('pause', 'agents')).stdout).toContain('agents: paused');
  const started = await backfill('start', 'agents', 'module-states');
  expect(started.code).toBe(1);
  expect(started.stdout).toMatch(/^module-states +completed /m);
  expect(started.stdout).toContain('agents: goes on with: npx annals backfill resume');
  await backfill('resume', 'agents');
  expect((await backfill('start', 'agents')).code).toBe(0);
  expect((await backfill('rollback')).code).toBe(0);
});

it('a retry completes what was in quarantine, here', { timeout: 180_000 }, async () => {
  await db.sql(
    `ALTER TABLE "InteractionMemory" ADD CONSTRAINT "not_seven" CHECK ("confidence" IS DISTINCT FROM 0.7) NOT VALID`,
  );
  const dry = await backfill('start', '--dry-run', 'interaction-memories');
  expect(dry).toMatchObject({ code: 1, stdout: expect.stringContaining('would be set apart') });
  const started = await backfill('start', 'interaction-memories');
  expect(started.code).toBe(1);
  expect(started.stdout).toMatch(/^interaction-memories +with errors +1,001/m);
  expect(started.stdout).toMatch(
    /\d+ rows in quarantine\n {2}"\w+": .*violates check constraint "not_seven"/,
  );
  expect(started.stdout).toContain('npx annals backfill retry interaction-memories');
  expectToFit(started.stdout);

  await db.sql(`ALTER TABLE "InteractionMemory" DROP CONSTRAINT "not_seven"`);
  // The hour in which nothing was done is no part of what the run took.
  await db.sql(
    `UPDATE "BackfillRun" SET "startedAt" = "startedAt" - interval '1 hour', "finishedAt" = "finishedAt" - interval '1 hour'`,
  );
  const retried = await backfill('retry', 'interaction-memories', '--json');
  expect(retried).toMatchObject({ code: 0 });
  const [run] = JSON.parse(retried.stdout) as [{ elapsedMs: number }];
  expect(run).toMatchObject({ status: 'completed', quarantined: 0 });
  expect(run.elapsedMs).toBeLessThan(1_800_000);
  expect((await backfill('retry')).stdout).toContain('interaction-memories: nothing to retry');
});

it.each(['start', 'status', 'pause', 'resume', 'cancel', 'retry', 'verify', 'rollback'])(
  '%s has help with examples',
  async (name) => {
    let help = '';
    const program = new Command('annals').exitOverride();
    addBackfill(program);
    const all = [program, ...program.commands.flatMap((each) => [each, ...each.commands])];
    for (const each of all) {
      each.configureOutput({ writeOut: (text) => (help += text) }).exitOverride();
    }
    const parsed = program.parseAsync(['backfill', name, '--help'], { from: 'user' });
    await expect(parsed).rejects.toMatchObject({ exitCode: 0 });
    expect(help).toMatch(new RegExp(`Examples:\n  \\$ annals backfill ${name}`));
    expect(help).toContain('--json');
  },
);

it.concurrent.each([
  [['rollback', 'nonsense'], 'got the table nonsense; takes agent-sessions, module-states'],
  [['start', '--lanes', 'many'], '--lanes: got many; takes a whole number from 1 to 64'],
  [['start', '--rest-ms', ''], '--rest-ms: got nothing; takes'],
  [['strat'], "unknown command 'strat'"],
])('%j is wrong usage', async (args, message) => {
  const { code, stdout, stderr } = await backfill(...args);
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  expect(stderr).toContain(message);
});
