import { afterAll, beforeAll, expect, it } from 'vitest';

import { startBoard, type Board } from '../src/board/board.ts';
import { applyMigrations } from '../src/database/migrations.ts';
import { createLogger } from '../src/logger.ts';
import { startReporter } from '../src/metrics/reports.ts';
import { createWorkerMetrics } from '../src/metrics/workerMetrics.ts';
import { startWorkers } from '../src/workers/runtime.ts';
import { describeRedis, testPrefix } from './support/database.ts';
import { sample } from './support/events.ts';
import { testConfig, testProducer } from './support/pipeline.ts';
import { startPostgres, startRedis, type TestServer } from './support/servers.ts';

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

  const answer = async () => {
    const response = await fetch(`${board.url}/readyz`);
    const { checks } = (await response.json()) as { checks: Record<string, string> };
    return { status: response.status, checks };
  };
  const ok = { database: 'ok', queue: 'ok', migrations: 'ok', commits: 'ok' };

  /** The promise: 10 s after something went wrong (or right again), it is told. */
  const tells = async (status: number, checks: Record<string, unknown>) => {
    await expect
      .poll(answer, { timeout: 10_000, interval: 100 })
      .toEqual({ status, checks: { ...ok, ...checks } });
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
