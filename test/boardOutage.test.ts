import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { startBoard, type Board } from '../src/board/board.ts';
import { applyMigrations } from '../src/database/migrations.ts';
import { createLogger } from '../src/logger.ts';
import { startReporter } from '../src/metrics/reports.ts';
import { createWorkerMetrics } from '../src/metrics/workerMetrics.ts';
import type { QueueLocation } from '../src/queues/backend.ts';
import { EVENT_KINDS, TASK_QUEUES } from '../src/queues/catalogue.ts';
import { startWorkers } from '../src/workers/runtime.ts';
import { describeRedis, testPrefix } from './support/database.ts';
import { sample } from './support/events.ts';
import { testConfig, testProducer } from './support/pipeline.ts';
import { startPostgres, startRedis, type TestServer } from './support/servers.ts';

const OK = { database: 'ok', queue: 'ok', migrations: 'ok', commits: 'ok' };

/** What `/readyz` of the board says. */
const readyz = async ({ url }: Board) => {
  const response = await fetch(`${url}/readyz`);
  const { checks } = (await response.json()) as { checks: Record<string, string> };
  return { status: response.status, checks };
};

describeRedis('/readyz', () => {
  const config = testConfig({ ANNALS_BOARD_PORT: '0', ANNALS_JOB_ATTEMPTS: '1' });
  const log = createLogger(config);
  let postgres: TestServer;
  let redis: TestServer;
  let board: Board;

  beforeAll(async () => {
    [postgres, redis] = await Promise.all([startPostgres(), startRedis()]);
    await applyMigrations(postgres.url);
    board = await startBoard({ databaseUrl: postgres.url, queue: location(), config, log });
  });

  afterAll(async () => {
    await board.stop(5000);
    await Promise.all([postgres.stop(), redis.stop()]);
  });

  const prefix = testPrefix();
  const location = () => ({ kind: 'redis' as const, url: redis.url, prefix });

  /** The promise: 10 s after something went wrong (or right again), it is told. */
  const tells = async (status: number, checks: Record<string, unknown>) => {
    await expect
      .poll(() => readyz(board), { timeout: 10_000, interval: 100 })
      .toEqual({ status, checks: { ...OK, ...checks } });
  };

  it('tells of each server that goes away, or merely hangs, and of its return', async () => {
    await tells(200, {});
    await postgres.kill();
    await tells(503, { database: expect.stringMatching(/ECONNREFUSED|terminated/) });
    await postgres.restart();
    await tells(200, {});
    postgres.pause();
    await tells(503, { database: expect.stringMatching(/no answer|timeout/) });
    postgres.resume();
    await tells(200, {});
    await redis.kill();
    await tells(503, { queue: expect.any(String) });
    await redis.restart();
    await tells(200, {});
    redis.pause();
    await tells(503, { queue: 'no answer' });
    redis.resume();
    await tells(200, {});
  });

  it('tells of commits that stall while there is something to commit', async () => {
    const producer = testProducer(location());
    producer.emit('memory-access', sample('memory-access', 1) as never);
    await producer.close();
    await tells(503, {
      commits: expect.stringMatching(/^memory-access: 1 jobs and no commit for/),
    });

    const { hooks, snapshot } = createWorkerMetrics('worker:1');
    const reporter = startReporter({
      databaseUrl: postgres.url,
      worker: 'worker:1',
      snapshot,
      log,
    });
    const workers = await startWorkers({
      databaseUrl: postgres.url,
      queue: location(),
      config,
      log,
      hooks,
    });
    await tells(200, {});
    await workers.stop(5000);
    await reporter.stop();
  });
});

/** Starts a board while its servers are as `away` made them, and brings these back. */
async function startsWhile(
  locate: () => QueueLocation,
  postgres: TestServer,
  away: () => Promise<unknown>,
  back: () => Promise<unknown>,
  checks: Record<string, unknown>,
) {
  await away();
  const config = testConfig({ ANNALS_BOARD_PORT: '0' });
  const options = { databaseUrl: postgres.url, queue: locate(), config, log: createLogger(config) };
  const board = await startBoard(options);
  try {
    expect((await fetch(`${board.url}/healthz`)).status).toBe(200);
    expect((await readyz(board)).status).toBe(503);
    await expect
      .poll(() => readyz(board), { timeout: 10_000 })
      .toMatchObject({ status: 503, checks });
    await back();
    await expect
      .poll(() => readyz(board), { timeout: 20_000 })
      .toEqual({ status: 200, checks: OK });
    const list = await fetch(`${board.url}/queues/api/queues`);
    const { queues } = (await list.json()) as { queues: { name: string }[] };
    expect(queues.map(({ name }) => name).sort()).toEqual(
      [...EVENT_KINDS, ...Object.keys(TASK_QUEUES)].sort(),
    );
  } finally {
    const since = performance.now();
    await board.stop(5000);
    expect(performance.now() - since).toBeLessThan(4000);
  }
}

describe('a board that starts before its servers', () => {
  let postgres: TestServer;
  beforeAll(async () => {
    postgres = await startPostgres();
    await applyMigrations(postgres.url);
  });
  afterAll(() => postgres.stop());
  const refused = { database: expect.stringMatching(/ECONNREFUSED/) };

  it('counts no workers while nobody can report', async () => {
    const config = testConfig({ ANNALS_BOARD_PORT: '0' });
    const [log, databaseUrl] = [createLogger(config), postgres.url];
    const { snapshot } = createWorkerMetrics('worker:1');
    const reporter = startReporter({ databaseUrl, worker: 'worker:1', snapshot, log });
    const queue = { kind: 'postgres' as const, url: postgres.url, prefix: testPrefix() };
    const board = await startBoard({ databaseUrl, queue, config, log });
    const shown = async () => {
      const metrics = await (await fetch(`${board.url}/metrics`)).text();
      const page = await (await fetch(board.url)).text();
      return [
        /^annals_workers (\d+)$/m.exec(metrics)?.[1],
        /Workers<\/h3>\s*<b>(\d+)/.exec(page)?.[1],
      ];
    };
    await expect.poll(shown).toEqual(['1', '1']);
    await postgres.kill();
    await expect.poll(shown, { timeout: 10_000 }).toEqual(['0', '0']);
    await postgres.restart();
    await expect.poll(shown).toEqual(['1', '1']);
    await reporter.stop();
    await board.stop(5000);
  });

  it('answers at once, and finds the queues on PostgreSQL when it is there', async () => {
    await startsWhile(
      () => ({ kind: 'postgres', url: postgres.url, prefix: testPrefix() }),
      postgres,
      () => postgres.kill(),
      () => postgres.restart(),
      { ...refused, queue: expect.stringMatching(/ECONNREFUSED/) },
    );
  });

  describeRedis('with queues on Redis', () => {
    let redis: TestServer;
    beforeAll(async () => {
      redis = await startRedis();
    });
    afterAll(() => redis.stop());
    const locate = () => ({ kind: 'redis' as const, url: redis.url, prefix: testPrefix() });

    it('does the same when both are down', async () => {
      await startsWhile(
        locate,
        postgres,
        () => Promise.all([postgres.kill(), redis.kill()]),
        () => Promise.all([postgres.restart(), redis.restart()]),
        { ...refused, queue: expect.stringMatching(/ECONNREFUSED/) },
      );
    });

    it('does the same when Redis hangs, for longer than a call may take', async () => {
      await startsWhile(
        locate,
        postgres,
        async () => redis.pause(),
        async () => {
          await sleep(11_000);
          redis.resume();
        },
        { queue: 'not reached yet' },
      );
    });

    it('can be stopped while it waits', async () => {
      await redis.kill();
      const config = testConfig({ ANNALS_BOARD_PORT: '0' });
      const log = createLogger(config);
      const board = await startBoard({ databaseUrl: postgres.url, queue: locate(), config, log });
      const since = performance.now();
      await board.stop(10_000);
      expect(performance.now() - since).toBeLessThan(6000);
      await redis.restart();
    });
  });
});
