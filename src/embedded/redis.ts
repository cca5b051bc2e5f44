import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Redis } from 'ioredis';

import { pidIn, runsWith, stopOrphan } from './orphan.ts';
import { launch, type ServerProcess, waitUntilReady } from './process.ts';

export interface StartRedis {
  /** Path of `redis-server`. */
  program: string;
  dataDir: string;
  logFile: string;
  password: string;
  /** On 127.0.0.1, the only address that it listens on. */
  port: number;
  /** Whether what it holds survives it; default true. */
  appendOnly?: boolean;
  /** Called when it answers that it is reading its data, which may take longer than a start. */
  onLoading?: () => void;
}

/**
 * Starts a Redis on the data in `dataDir` and waits until it answers.
 *
 * @throws {EmbeddedServerError} when it does not
 */
export async function startRedis(options: StartRedis): Promise<ServerProcess> {
  const { program, dataDir, port, password, logFile, appendOnly = true } = options;
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const configFile = configFileIn(dataDir);
  const settings = {
    bind: '127.0.0.1',
    port,
    requirepass: password,
    pidfile: JSON.stringify(pidFileIn(dataDir)),
    dir: JSON.stringify(dataDir),
    appendonly: appendOnly ? 'yes' : 'no',
    appendfsync: 'everysec',
    save: '""',
    // BullMQ's keys are the queue: none may be evicted.
    'maxmemory-policy': 'noeviction',
    // The command line keeps this file's path, by which an orphan is known to be ours.
    'set-proc-title': 'no',
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name} ${value}`);
  writeFileSync(configFile, `${lines.join('\n')}\n`, { mode: 0o600 });
  chmodSync(configFile, 0o600);

  const server = await launch('Redis', { file: program, args: [configFile] }, logFile);
  try {
    await waitUntilReady(
      server,
      () => ping(redisUrl(port, password)),
      isLoading,
      options.onLoading,
    );
  } catch (error) {
    await stopRedis(server);
    throw error;
  }
  return server;
}

const configFileIn = (dataDir: string) => join(dataDir, 'redis.conf');
const pidFileIn = (dataDir: string) => join(dataDir, 'redis.pid');

const isLoading = (error: unknown) => (error as Error).message.startsWith('LOADING');

/** Stops the server on `dataDir` that a killed supervisor left behind. */
export async function stopOrphanedRedis(
  dataDir: string,
  log: (line: string) => void,
): Promise<void> {
  const pid = pidIn(pidFileIn(dataDir));
  if (pid === undefined || !runsWith(pid, configFileIn(dataDir))) return;
  log(`stopping the Redis (pid ${pid}) of an earlier supervisor`);
  await stopOrphan(pid, ['SIGTERM']);
}

/** Redis writes its append-only file to the end before it obeys. */
export function stopRedis(server: ServerProcess): Promise<void> {
  return server.stop(['SIGTERM']);
}

export function redisUrl(port: number, password: string): string {
  return `redis://:${password}@127.0.0.1:${port}`;
}

async function ping(url: string): Promise<void> {
  const client = new Redis(url, {
    lazyConnect: true,
    enableReadyCheck: false,
    retryStrategy: null,
    connectTimeout: 5000,
    commandTimeout: 5000,
  });
  client.on('error', () => {}); // what matters rejects the calls below
  try {
    await client.connect();
    await client.ping(); // while it loads its data it is connected, but refuses this
  } finally {
    client.disconnect();
  }
}
