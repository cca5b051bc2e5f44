import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import pg from 'pg';
import type { TestProject } from 'vitest/node';

import { applyMigrations } from '../../src/database/migrations.ts';
import { initCluster } from '../../src/embedded/cluster.ts';
import { postgresUrl, startPostgres, stopPostgres } from '../../src/embedded/postgres.ts';
import { freePort, type ServerProcess } from '../../src/embedded/process.ts';
import { redisUrl, startRedis, stopRedis } from '../../src/embedded/redis.ts';
import { removeFolder } from './files.ts';
import { killLeftOvers } from './pids.ts';
import { onPath, testBinaries } from './programs.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** The superuser's URL of the PostgreSQL that the run's test files share. */
    postgresUrl: string;
    /** The Redis that the run's test files share; null without `redis-server` on the PATH. */
    redisUrl: string | null;
  }
}

/** What the run holds goes with the run: speed is all that counts. */
const THROWAWAY_SETTINGS = {
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
  shared_buffers: '128MB',
  max_connections: '400',
  max_wal_size: '4GB',
  jit: 'off',
};

/** Starts a PostgreSQL and a Redis for the whole run; returns what stops them. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = mkdtempSync(join(tmpdir(), 'annals-test-'));
  chmodSync(folder, 0o711); // the account that PostgreSQL runs as when we are root must pass
  const pidFolder = join(folder, 'pids');
  // For the tests and what they start: nothing of theirs may stay in the repository.
  process.env['ANNALS_SPOOL_DIR'] = join(folder, 'spool');
  const keep = process.env['ANNALS_TEST_KEEP'] === '1';
  const servers: { server: ServerProcess; stop: (server: ServerProcess) => Promise<void> }[] = [];

  // The last resort when the run ends without its teardown: nothing asynchronous works here.
  const atExit = () => {
    killLeftOvers(pidFolder);
    for (const { server } of servers) if (server.isRunning()) process.kill(server.pid, 'SIGKILL');
    removeFolder(folder);
  };
  if (!keep) process.once('exit', atExit);

  const binaries = testBinaries();
  const [password, port] = [randomBytes(16).toString('hex'), await freePort()];
  const dataDir = join(folder, 'postgres');
  await initCluster(binaries, dataDir, password);
  const postgres = await startPostgres({
    binaries,
    dataDir,
    password,
    port,
    logFile: join(folder, 'postgres.log'),
    settings: THROWAWAY_SETTINGS,
  });
  servers.push({ server: postgres, stop: stopPostgres });
  const url = postgresUrl(port, password);
  await createTemplate(url);

  const program = onPath('redis-server');
  let redis: string | null = null;
  if (program) {
    const redisPort = await freePort();
    const server = await startRedis({
      program,
      dataDir: join(folder, 'redis'),
      password,
      port: redisPort,
      logFile: join(folder, 'redis.log'),
      appendOnly: false,
    });
    servers.push({ server, stop: stopRedis });
    redis = redisUrl(redisPort, password);
  } else console.warn('redis-server is not on the PATH: the Redis suites are skipped.');

  project.provide('pidFolder', pidFolder);
  project.provide('postgresUrl', url);
  project.provide('redisUrl', redis);

  return async () => {
    killLeftOvers(pidFolder);
    if (keep) {
      console.warn(
        `ANNALS_TEST_KEEP=1: still running are ${servers.map(({ server }) => `${server.name} (pid ${server.pid})`).join(', ')}, with data in ${folder}`,
      );
      for (const { server } of servers) server.detach();
      return;
    }
    await Promise.all(servers.map(({ server, stop }) => stop(server)));
    removeFolder(folder);
    process.off('exit', atExit);
  };
}

/** A database with every migration applied, which `createTestDatabase` clones. */
async function createTemplate(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query('CREATE DATABASE annals_template');
  } finally {
    await client.end();
  }
  await applyMigrations(Object.assign(new URL(url), { pathname: 'annals_template' }).href);
}
