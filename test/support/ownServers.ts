import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync } from 'node:fs';
import { join } from 'node:path';

import { initCluster } from '../../src/embedded/cluster.ts';
import { postgresUrl, startPostgres, stopPostgres } from '../../src/embedded/postgres.ts';
import { freePort, type ServerProcess } from '../../src/embedded/process.ts';
import { redisUrl, startRedis, stopRedis } from '../../src/embedded/redis.ts';
import { removeFolder } from './files.ts';
import { onPath, testBinaries } from './programs.ts';
import { controlServer, type TestServer } from './serverControl.ts';

/** Where a server of one's own keeps its data, and who minds its processes. */
export interface OwnServer {
  /** In which a folder is made for it, removed when it is stopped. */
  parent: string;
  /** Told of each process that is started, so that nothing outlives the run. */
  onStart: (server: ServerProcess) => void;
}

export interface OwnPostgresOptions {
  /** As in postgresql.conf; default those of the embedded PostgreSQL: durable. */
  settings?: Readonly<Record<string, string>>;
}

export interface OwnRedisOptions {
  /** Whether what it holds survives a kill; default true. */
  appendonly?: boolean;
  /** Default: one that is free. */
  port?: number;
  /** Path of the server's program; default `redis-server` of the PATH. */
  program?: string;
}

/** A new PostgreSQL, without any table of Annals. */
export async function ownPostgres(
  { parent, onStart }: OwnServer,
  { settings }: OwnPostgresOptions = {},
): Promise<TestServer> {
  const folder = serverFolder(parent, 'postgres');
  const [binaries, password, port] = [testBinaries(), secret(), await freePort()];
  const [dataDir, logFile] = [join(folder, 'data'), join(folder, 'log')];
  await initCluster(binaries, dataDir, password);
  return controlServer({
    port,
    url: postgresUrl(port, password),
    start: () =>
      startPostgres({ binaries, dataDir, password, port, logFile, ...(settings && { settings }) }),
    stop: stopPostgres,
    remove: () => removeFolder(folder),
    onStart,
  });
}

/** @throws {Error} without `redis-server` on the PATH */
export async function ownRedis(
  { parent, onStart }: OwnServer,
  {
    appendonly: appendOnly = true,
    port: wanted,
    program = onPath('redis-server'),
  }: OwnRedisOptions = {},
): Promise<TestServer> {
  if (!program) throw new Error('redis-server is not on the PATH');
  const folder = serverFolder(parent, 'redis');
  const [password, port] = [secret(), wanted ?? (await freePort())];
  const [dataDir, logFile] = [join(folder, 'data'), join(folder, 'log')];
  return controlServer({
    port,
    url: redisUrl(port, password),
    start: () => startRedis({ program, dataDir, password, port, logFile, appendOnly }),
    stop: stopRedis,
    remove: () => removeFolder(folder),
    onStart,
  });
}

function serverFolder(parent: string, name: string): string {
  const folder = mkdtempSync(join(parent, `annals-${name}-`));
  chmodSync(folder, 0o711); // the account that PostgreSQL runs as when we are root must pass
  return folder;
}

const secret = () => randomBytes(16).toString('hex');
