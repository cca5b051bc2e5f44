import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { prepareQueues, type QueueLocation } from '../src/queues/backend.ts';
import { describeRedis, testPrefix } from './support/database.ts';
import { eventId } from './support/events.ts';
import { removeFolder } from './support/files.ts';
import { testProducer } from './support/pipeline.ts';
import { spawnTsx } from './support/process.ts';
import type { ProducerJob } from './support/producerMain.ts';
import { startPostgres, startRedis, type TestServer } from './support/servers.ts';
import { queuedIds, segmentFiles } from './support/spools.ts';

/** That of the producer's close, as in producerMain. */
const DEADLINE_MS = 1500;
const EVENTS = 50;

const folder = mkdtempSync(join(tmpdir(), 'annals-stop-producer-'));
afterAll(() => removeFolder(folder));

/** Milliseconds from SIGTERM to the end of a process, and what it ended with. */
async function stop(child: ChildProcess) {
  const stoppedAt = performance.now();
  const exited = once(child, 'exit') as Promise<[number | null]>;
  child.kill('SIGTERM');
  const [code] = await exited;
  return { code, tookMs: performance.now() - stoppedAt };
}

/** How long a process takes on this machine, now, that stops at exactly the deadline. */
async function clockMs(): Promise<number> {
  const program = `process.on('SIGTERM', () => setTimeout(() => process.exit(0), ${DEADLINE_MS}));
    setTimeout(() => {}, 600000); console.log('ready');`;
  const clock = spawn(process.execPath, ['-e', program]);
  await once(clock.stdout, 'data');
  return (await stop(clock)).tookMs;
}

async function bring(server: TestServer, state: string): Promise<void> {
  if (state === 'down') await server.kill();
  if (state === 'silent') server.pause();
}
async function restore(server: TestServer, state: string): Promise<void> {
  if (state === 'down') await server.restart();
  if (state === 'silent') server.resume();
}

describe.each(['redis', 'postgres'] as const)('SIGTERM to an agent with queues on %s', (kind) => {
  const suite = kind === 'redis' ? describeRedis : describe;
  suite('', () => {
    let server: TestServer;
    beforeAll(async () => {
      server = await (kind === 'redis' ? startRedis() : startPostgres());
    });
    afterAll(() => server.stop());

    it.each([
      ['up', 'once it was connected'],
      ['down', 'once it was connected'],
      ['silent', 'once it was connected'],
      ['down', 'from the start on'],
      ['silent', 'from the start on'],
    ])(
      'which is %s %s, ends it in time, and the next start sends the rest',
      async (state, when) => {
        const queue: QueueLocation = { kind, url: server.url, prefix: testPrefix() };
        await prepareQueues(queue);
        const spool = mkdtempSync(join(folder, 'spool-'));
        const env = { ANNALS_SPOOL_DIR: spool, ANNALS_SPOOL_AFTER_MS: '500' };
        if (when === 'from the start on') await bring(server, state);
        const job: ProducerJob = { queue, mode: 'stop', events: EVENTS };
        const child = spawnTsx('test/support/producerMain.ts', [JSON.stringify(job)], env);
        let output = '';
        for (const stream of [child.stdout, child.stderr]) {
          stream.on('data', (text: Buffer) => (output += text.toString()));
        }
        await once(child.stdout, 'data'); // flushed, to the queue or the spool
        if (when === 'once it was connected') await bring(server, state);

        const [{ code, tookMs }, allowedMs] = await Promise.all([stop(child), clockMs()]);
        expect(output).toBe('flushed\nclosed\n');
        expect(code).toBe(0);
        expect(tookMs).toBeLessThan(allowedMs + 1000);

        await restore(server, state);
        const next = testProducer(queue, { env });
        await next.close({ deadlineMs: 30_000 });
        expect(segmentFiles(spool)).toEqual([]);
        const ids = new Set(await queuedIds(queue));
        const missing = Array.from({ length: EVENTS + 1 }, (_, n) => eventId(n, 1)).filter(
          (id) => !ids.has(id),
        );
        expect(missing).toEqual([]);
      },
    );
  });
});

it('a producer whose queue is not found keeps nothing alive, however late a call may be', async () => {
  const program = join(folder, 'unfound.mts');
  const source = new URL('../src/producers/producer.ts', import.meta.url).href;
  writeFileSync(
    program,
    `import { createProducer } from '${source}';
    const producer = createProducer({ queue: () => new Promise(() => {}) });
    producer.metric({ scope: 'agent', agentId: 'a', metricType: 'm', metricValue: 1 });
    setTimeout(() => {
      console.log('closing');
      void producer.close({ deadlineMs: 300 });
    }, 100);`,
  );
  const spool = mkdtempSync(join(folder, 'spool-'));
  const env = { ANNALS_SPOOL_DIR: spool, ANNALS_SPOOL_AFTER_MS: '60000' };
  const child = spawnTsx(program, [], env);
  const exited = once(child, 'exit');
  await once(child.stdout, 'data');
  const closingAt = performance.now();
  expect(await exited).toEqual([0, null]);
  expect(performance.now() - closingAt).toBeLessThan(3000);
});
