import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { applyMigrations } from '../../src/database/migrations.ts';
import { initCluster } from '../../src/embedded/cluster.ts';
import { postgresUrl, startPostgres, stopPostgres } from '../../src/embedded/postgres.ts';
import { freePort } from '../../src/embedded/process.ts';
import { redisUrl, startRedis, stopRedis } from '../../src/embedded/redis.ts';
import type { QueueLocation } from '../../src/queues/backend.ts';
import { onPath, testBinaries } from '../../test/support/programs.ts';
import { controlServer, type TestServer } from '../../test/support/serverControl.ts';
import { startProxy, type Proxy } from './proxy.ts';

/** A server, and the way to it that everybody but the audit takes. */
export interface Server {
  control: TestServer;
  proxy: Proxy;
}

/** Durable servers of a run's own, and a folder for what its processes leave. */
export interface ChaosGround {
  folder: string;
  postgres: Server;
  redis: Server | undefined;
  /** By way of the proxy, as `queue` is. */
  databaseUrl: string;
  queue: QueueLocation;
  close(): Promise<void>;
}

export async function openChaosGround(backend: QueueLocation['kind']): Promise<ChaosGround> {
  const folder = mkdtempSync(join(tmpdir(), 'annals-chaos-'));
  chmodSync(folder, 0o711); // as root, PostgreSQL runs as another user, who must pass
  const pids = new Set<number>();
  const onStart = ({ pid, exited }: { pid: number; exited: Promise<void> }) => {
    pids.add(pid);
    void exited.then(() => pids.delete(pid));
  };
  // The last resort, when the run ends without its `close`: nothing asynchronous works here.
  const atExit = () => {
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  };
  process.once('exit', atExit);

  const postgres = await withProxy(await ownPostgres(join(folder, 'postgres'), onStart));
  await applyMigrations(postgres.control.url);
  const redis =
    backend === 'redis'
      ? await withProxy(await ownRedis(join(folder, 'redis'), onStart))
      : undefined;
  return {
    folder,
    postgres,
    redis,
    databaseUrl: postgres.proxy.url,
    queue: { kind: backend, url: (redis ?? postgres).proxy.url, prefix: 'annals' },
    close: async () => {
      for (const server of [redis, postgres]) {
        server?.proxy.close();
        await server?.control.stop();
      }
      process.off('exit', atExit);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

type OnStart = Parameters<typeof controlServer>[0]['onStart'] & {};

async function ownPostgres(folder: string, onStart: OnStart): Promise<TestServer> {
  const [binaries, password, port] = [testBinaries(), secret(), await freePort()];
  const [dataDir, logFile] = [join(folder, 'data'), join(folder, 'log')];
  makeFolder(folder);
  await initCluster(binaries, dataDir, password);
  return controlServer({
    port,
    url: postgresUrl(port, password),
    start: () => startPostgres({ binaries, dataDir, password, port, logFile }),
    stop: stopPostgres,
    remove: () => rmSync(folder, { recursive: true, force: true }),
    onStart,
  });
}

async function ownRedis(folder: string, onStart: OnStart): Promise<TestServer> {
  const program = onPath('redis-server');
  if (!program) throw new Error('redis-server is not on the PATH; try --queue postgres');
  const [password, port] = [secret(), await freePort()];
  const [dataDir, logFile] = [join(folder, 'data'), join(folder, 'log')];
  makeFolder(folder);
  return controlServer({
    port,
    url: redisUrl(port, password),
    start: () => startRedis({ program, dataDir, password, port, logFile }),
    stop: stopRedis,
    remove: () => rmSync(folder, { recursive: true, force: true }),
    onStart,
  });
}

async function withProxy(control: TestServer): Promise<Server> {
  return { control, proxy: await startProxy(control.url) };
}

function makeFolder(folder: string): void {
  mkdirSync(folder);
  chmodSync(folder, 0o711);
}

const secret = () => randomBytes(16).toString('hex');
