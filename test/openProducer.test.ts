import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { openServers } from '../src/embedded/index.ts';
import { createProducer, type EventInput } from '../src/index.ts';
import { openQueue } from '../src/queues/backend.ts';
import { describeRedis, redisUrl, testPrefix } from './support/database.ts';
import { removeFolder } from './support/files.ts';
import { testConfig } from './support/pipeline.ts';
import { run } from './support/process.ts';

const ACCESS: EventInput<'memory-access'> = {
  memoryId: 'memory',
  accessType: 'read',
  accessedBy: 'agent',
  accessorType: 'agent',
};

/** An agent that emits, and says what came of it. */
const AGENT = `
import { createProducer } from './src/index.ts';
const annals = createProducer();
annals.memoryAccess(${JSON.stringify(ACCESS)});
await annals.close();
console.log(JSON.stringify(annals.stats()));
process.exit();
`;

const agent = (env: Record<string, string>) =>
  run(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', AGENT], { env });

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'annals-producer-'));
});
afterAll(() => removeFolder(folder));

it('sends to embedded servers when nothing is configured', async () => {
  const config = testConfig({
    DATABASE_URL: '',
    REDIS_URL: '',
    ANNALS_DATA_DIR: join(folder, 'data'),
    ANNALS_QUEUE_BACKEND: 'postgres',
  });
  const servers = await openServers(config, () => {}, { graceMs: 0 });
  const producer = createProducer({ config });
  producer.memoryAccess(ACCESS);
  await producer.flush();
  await producer.close();
  expect(producer.stats()).toMatchObject({ accepted: 1, delivered: 1, dropped: 0 });

  const queue = openQueue({ ...servers.queue, prefix: 'annals' }, 'memory-access');
  expect(await queue.getWaitingCount()).toBe(1);
  await queue.close();
  // The producer has let go, so that ours is the last lease.
  await servers.close();
  const pidFile = join(folder, 'data', 'postgres', 'postmaster.pid');
  await expect.poll(() => existsSync(pidFile), { timeout: 20_000 }).toBe(false);
});

describeRedis('with a Redis', () => {
  it('embeds nothing', async () => {
    const dataDir = join(folder, 'none');
    const config = testConfig({
      DATABASE_URL: '',
      REDIS_URL: redisUrl(),
      ANNALS_DATA_DIR: dataDir,
      ANNALS_QUEUE_PREFIX: testPrefix(),
    });
    const producer = createProducer({ config });
    producer.memoryAccess(ACCESS);
    await producer.close();
    expect(producer.stats()).toMatchObject({ delivered: 1 });
    expect(existsSync(dataDir)).toBe(false);
  });

  it('lets no agent fail for what is not the producer’s: OpenTelemetry’s, the board’s', async () => {
    const env = { REDIS_URL: redisUrl(), ANNALS_QUEUE_PREFIX: testPrefix() };
    const { code, stdout, stderr } = await agent({
      ...env,
      ANNALS_BOARD_PORT: 'http',
      ANNALS_BOARD_TOKEN: 'short',
      OTEL_EXPORTER_OTLP_ENDPOINT: 'localhost:4317',
    });
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(JSON.parse(stdout)).toMatchObject({ delivered: 1 });
    expect(stderr.match(/OTEL_EXPORTER_OTLP_ENDPOINT is no URL of http/g)).toHaveLength(1);
    expect(await agent({ ...env, OTEL_SDK_DISABLED: 'True' })).toMatchObject({
      code: 0,
      stderr: '',
    });
    expect(await agent({ ...env, ANNALS_ON_FULL: 'explode' })).toMatchObject({ code: 1 });
  });
});
