/*
 * Runs as a process of its own, and owns the embedded servers of one data folder for all the
 * processes that use them. Each of these holds a lease: an open connection to the supervisor's
 * socket, which the kernel closes however its holder ends. After the last one the servers stop.
 */
import { existsSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';

import { embeddedPostgresBinaries, type PostgresBinaries } from './binaries.ts';
import { initCluster, removeDrafts } from './cluster.ts';
import { lastPorts, loadPassword, rememberPorts, setAside } from './dataFolder.ts';
import { type Keeper, keepRunning } from './keeper.ts';
import { postgresUrl, startPostgres, stopOrphanedPostgres, stopPostgres } from './postgres.ts';
import {
  type Granted,
  type Line,
  onEachLine,
  type Order,
  type SupervisorOptions,
} from './protocol.ts';
import { redisUrl, startRedis, stopOrphanedRedis, stopRedis } from './redis.ts';
import { claimSocket, socketFolder } from './socket.ts';

const { dataDir, graceMs } = JSON.parse(process.argv[2] ?? '{}') as SupervisorOptions;

/** Whoever started us will connect at once, unless killed in between. */
const FIRST_LEASE_MS = 10_000;

/** Apart from `postgres`, to which tools connect when they drop and make databases. */
const DATABASE = 'annals';

const inDataDir = (name: string) => join(dataDir, name);
const log = (line: string) => console.log(`${new Date().toISOString()} [${process.pid}] ${line}`);

const leases = new Set<Socket>();
const keepers: { postgres?: Keeper; redis?: Keeper } = {};
let password: string;
let idle: NodeJS.Timeout | undefined;
let stopping = false;

function postgresKeeper(): Keeper {
  const cluster = inDataDir('postgres');
  const logFile = inDataDir('postgres.log');
  let binaries: PostgresBinaries;
  return keepRunning(
    {
      name: 'PostgreSQL',
      preferredPort: lastPorts(dataDir).postgres,
      prepare: async () => {
        await stopOrphanedPostgres(cluster, log);
        removeDrafts(cluster);
        setAside(logFile);
        binaries = embeddedPostgresBinaries();
        if (!existsSync(cluster))
          tell(`making a new PostgreSQL ${binaries.version} cluster in ${cluster}`);
        await initCluster(binaries, cluster, password);
      },
      start: (port) =>
        startPostgres({
          binaries,
          dataDir: cluster,
          logFile,
          password,
          port,
          database: DATABASE,
          onRecovery: () => tell('PostgreSQL is recovering after a crash'),
        }),
      stop: stopPostgres,
    },
    log,
    stopBecauseHopeless,
  );
}

function redisKeeper(program: string): Keeper {
  const folder = inDataDir('redis');
  const logFile = inDataDir('redis.log');
  return keepRunning(
    {
      name: 'Redis',
      preferredPort: lastPorts(dataDir).redis,
      prepare: async () => {
        await stopOrphanedRedis(folder, log);
        setAside(logFile);
      },
      start: (port) =>
        startRedis({
          program,
          dataDir: folder,
          logFile,
          password,
          port,
          onLoading: () => tell('Redis is reading its append-only file'),
        }),
      stop: stopRedis,
    },
    log,
    stopBecauseHopeless,
  );
}

/** Starts what is ordered and does not run yet. */
async function fulfil(order: Order): Promise<Granted> {
  if (order.postgres) keepers.postgres ??= postgresKeeper();
  if (order.redis) keepers.redis ??= redisKeeper(order.redis);
  const [postgres, redis] = await Promise.all([
    order.postgres ? keepers.postgres?.running() : undefined,
    order.redis ? keepers.redis?.running() : undefined,
  ]);
  rememberPorts(dataDir, {
    ...(postgres && { postgres: postgres.port }),
    ...(redis && { redis: redis.port }),
  });
  return {
    databaseUrl: postgres ? postgresUrl(postgres.port, password, DATABASE) : null,
    redisUrl: redis ? redisUrl(redis.port, password) : null,
    pids: { supervisor: process.pid, postgres: postgres?.pid ?? null, redis: redis?.pid ?? null },
  };
}

function onConnection(socket: Socket): void {
  leases.add(socket);
  clearTimeout(idle);
  socket.on('error', () => {}); // 'close' follows
  socket.once('close', () => {
    leases.delete(socket);
    stopWhenIdleFor(graceMs);
  });
  onEachLine<Order>(socket, (order) => {
    // While we stop, a newcomer waits unanswered until our exit closes its connection; then it
    // starts a supervisor of its own, which finds the servers gone.
    if (stopping) return;
    fulfil(order).then(
      (granted) => say(socket, { granted }),
      (error: Error) => {
        log(error.message);
        say(socket, { error: error.message });
      },
    );
  });
}

const say = (socket: Socket, line: Line) => socket.write(`${JSON.stringify(line)}\n`);

function tell(news: string): void {
  log(news);
  for (const socket of leases) say(socket, { news });
}

function stopWhenIdleFor(ms: number): void {
  if (leases.size > 0 || stopping) return;
  clearTimeout(idle);
  idle = setTimeout(() => void stop('no process uses the servers any more', 0), ms);
}

function stopBecauseHopeless(): void {
  void stop('a server does not stay up', 1);
}

async function stop(why: string, exitCode: number): Promise<void> {
  if (stopping) return;
  stopping = true;
  log(`stopping: ${why}`);
  // We keep listening, and so the lock, until the servers are gone.
  await Promise.all([keepers.postgres?.stop(), keepers.redis?.stop()]);
  log('stopped');
  process.exit(exitCode);
}

async function main(): Promise<void> {
  const server = createServer(onConnection);
  if (!(await claimSocket(socketFolder(dataDir), server))) process.exit(0);
  log(`supervising ${dataDir}`);
  password = loadPassword(dataDir);
  stopWhenIdleFor(FIRST_LEASE_MS);
}

for (const signal of ['SIGTERM', 'SIGINT'] as const)
  process.on(signal, () => void stop(`got ${signal}`, 0));
process.on('uncaughtException', (error) => {
  log(error.stack ?? error.message);
  void stop('of an unforeseen error', 1);
});
await main();
