import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { initCluster } from '../../src/embedded/cluster.ts';
import * as postgres from '../../src/embedded/postgres.ts';
import { freePort } from '../../src/embedded/process.ts';
import * as redis from '../../src/embedded/redis.ts';
import { forgetPid, killAtExit } from './pids.ts';
import { onPath, testBinaries } from './programs.ts';
import { controlServer, type ServerControl, type TestServer } from './serverControl.ts';

export type { TestServer };

export interface TestPostgresOptions {
  /** As in postgresql.conf; default those of the embedded PostgreSQL: durable. */
  settings?: Readonly<Record<string, string>>;
}

export interface TestRedisOptions {
  /** Whether what it holds survives a kill; default true. */
  appendonly?: boolean;
  /** Default: one that is free. */
  port?: number;
}

export async function startPostgres({ settings }: TestPostgresOptions = {}): Promise<TestServer> {
  const folder = serverFolder();
  const [binaries, password, port] = [
    testBinaries(),
    randomBytes(16).toString('hex'),
    await freePort(),
  ];
  const dataDir = join(folder, 'data');
  await initCluster(binaries, dataDir, password);
  return testServer(folder, {
    port,
    url: postgres.postgresUrl(port, password),
    stop: postgres.stopPostgres,
    start: () =>
      postgres.startPostgres({
        binaries,
        dataDir,
        password,
        port,
        logFile: join(folder, 'log'),
        ...(settings && { settings }),
      }),
  });
}

export async function startRedis({
  appendonly = true,
  port,
}: TestRedisOptions = {}): Promise<TestServer> {
  const program = onPath('redis-server');
  if (!program) throw new Error('redis-server is not on the PATH: use describeRedis');
  const folder = serverFolder();
  const password = randomBytes(16).toString('hex');
  const chosen = port ?? (await freePort());
  return testServer(folder, {
    port: chosen,
    url: redis.redisUrl(chosen, password),
    stop: redis.stopRedis,
    start: () =>
      redis.startRedis({
        program,
        dataDir: join(folder, 'data'),
        password,
        port: chosen,
        logFile: join(folder, 'log'),
        appendOnly: appendonly,
      }),
  });
}

function serverFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'annals-test-'));
  chmodSync(folder, 0o711); // the account that PostgreSQL runs as when we are root must pass
  return folder;
}

/** Part of the run: what is left of it goes with the run. */
function testServer(
  folder: string,
  control: Pick<ServerControl, 'port' | 'url' | 'start' | 'stop'>,
): Promise<TestServer> {
  return controlServer({
    ...control,
    remove: () => rmSync(folder, { recursive: true, force: true }),
    onStart: ({ pid, exited }) => {
      killAtExit(pid);
      void exited.then(() => forgetPid(pid));
    },
  });
}
