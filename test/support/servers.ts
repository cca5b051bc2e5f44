import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { initCluster } from '../../src/embedded/cluster.ts';
import * as postgres from '../../src/embedded/postgres.ts';
import { freePort, type ServerProcess } from '../../src/embedded/process.ts';
import * as redis from '../../src/embedded/redis.ts';
import { forgetPid, killAtExit } from './pids.ts';
import { onPath, testBinaries } from './programs.ts';

/** A server of a test's own, to be killed, paused and restarted at will. */
export interface TestServer {
  readonly url: string;
  readonly port: number;
  /** Of the server that runs now; another one after a restart. */
  readonly pid: number;
  /** Sends the signal (default SIGKILL) and resolves when the server is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Freezes the server and its children: connections stay open and nothing answers. */
  pause(): void;
  resume(): void;
  /** Stops the server if it runs, and starts it on the same port and data. */
  restart(): Promise<void>;
  /** Stops the server and removes its data. */
  stop(): Promise<void>;
}

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
  return testServer(folder, port, postgres.postgresUrl(port, password), postgres.stopPostgres, () =>
    postgres.startPostgres({
      binaries,
      dataDir,
      password,
      port,
      logFile: join(folder, 'log'),
      ...(settings && { settings }),
    }),
  );
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
  return testServer(folder, chosen, redis.redisUrl(chosen, password), redis.stopRedis, () =>
    redis.startRedis({
      program,
      dataDir: join(folder, 'data'),
      password,
      port: chosen,
      logFile: join(folder, 'log'),
      appendOnly: appendonly,
    }),
  );
}

function serverFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'annals-test-'));
  chmodSync(folder, 0o711); // the account that PostgreSQL runs as when we are root must pass
  return folder;
}

async function testServer(
  folder: string,
  port: number,
  url: string,
  stop: (server: ServerProcess) => Promise<void>,
  start: () => Promise<ServerProcess>,
): Promise<TestServer> {
  const startKnown = async () => {
    const server = await start();
    killAtExit(server.pid);
    void server.exited.then(() => forgetPid(server.pid));
    return server;
  };
  let server = await startKnown();
  const toAll = (signal: NodeJS.Signals) => {
    for (const pid of [server.pid, ...childrenOf(server.pid)]) signalIfAlive(pid, signal);
  };
  const kill = async (signal: NodeJS.Signals = 'SIGKILL') => {
    const children = childrenOf(server.pid);
    signalIfAlive(server.pid, signal);
    await server.exited;
    // PostgreSQL's children notice the death of their parent and go; a restart must wait for them.
    while (children.some((pid) => signalIfAlive(pid, 0))) await sleep(10);
  };
  return {
    url,
    port,
    get pid() {
      return server.pid;
    },
    kill,
    pause: () => toAll('SIGSTOP'),
    resume: () => toAll('SIGCONT'),
    restart: async () => {
      toAll('SIGCONT');
      await stop(server);
      server = await startKnown();
    },
    stop: async () => {
      toAll('SIGCONT');
      await stop(server);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function childrenOf(parent: number): number[] {
  return execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter(([, ppid]) => ppid === parent)
    .map(([pid]) => pid as number);
}

/** Whether the process was there to get it. */
function signalIfAlive(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}
