import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { removeFolder } from './support/files.ts';
import type { QueueLocation } from '../src/queues/backend.ts';
import { drained, openQueues, testWorkers } from './support/pipeline.ts';
import { ROOT, run } from './support/process.ts';
import { createUserAndAgent } from './service/fixture.ts';

const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');

/** The TypeScript of a section, with the package's name pointing at the source. */
function snippetOf(heading: string): string {
  const [, code] =
    new RegExp(`## ${heading}\\n[^]*?\`\`\`typescript\\n([^]*?)\`\`\``).exec(readme) ?? [];
  if (!code) throw new Error(`README has no snippet under "${heading}"`);
  expect(code).toContain("from 'annals'");
  return code.replace("from 'annals'", `from '${pathToFileURL(join(ROOT, 'src/index.ts')).href}'`);
}

let db: TestDatabase;
let folder: string;
const runSnippet = (heading: string) => {
  const file = join(folder, 'snippet.mts');
  writeFileSync(file, snippetOf(heading));
  return run(process.execPath, ['--import', 'tsx', file], {
    env: { DATABASE_URL: db.url, REDIS_URL: undefined, ANNALS_QUEUE_BACKEND: 'postgres' },
    timeoutMs: 20_000,
  });
};

beforeAll(async () => {
  db = await createTestDatabase();
  await createUserAndAgent(db);
  folder = mkdtempSync(join(tmpdir(), 'annals-readme-'));
});
afterAll(async () => {
  removeFolder(folder);
  await db.drop();
});

it('emitting from an agent, and the workers, make a row of each event', async () => {
  expect(await runSnippet('Emit from an agent')).toMatchObject({ code: 0, stderr: '' });
  const location: QueueLocation = { kind: 'postgres', url: db.url, prefix: 'annals' };
  const queues = openQueues(location);
  for (const kind of ['session-event', 'memory-access', 'transition', 'metrics'] as const) {
    const [job] = await queues[kind].getWaiting();
    expect(job?.data.events).toHaveLength(1);
  }
  const workers = await testWorkers(db, location);
  await drained(queues);
  await workers.stop(5000);
  await queues.close();
  expect(await db.prisma.sessionEvent.count()).toBe(1);
  expect(await db.prisma.memoryAccess.count()).toBe(1);
  expect(await db.prisma.stateTransition.count()).toBe(1);
  expect(await db.prisma.sessionMetric.count()).toBe(1);
});

it('using the service stores what it says', async () => {
  expect(await runSnippet('Use the service')).toMatchObject({ code: 0, stderr: '' });
  expect(
    await db.sql(
      `SELECT "status", "qualityScore" FROM "AgentSession" WHERE "sessionId" = 'another-session'`,
    ),
  ).toEqual([{ status: 'completed', qualityScore: 0.9 }]);
  expect(await db.prisma.sessionMetric.count({ where: { metricType: 'turns' } })).toBe(1);
});
