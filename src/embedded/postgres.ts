import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';

import pg from 'pg';

import { Connection } from '../database/connection.ts';
import { runAs, serverAccount } from './account.ts';
import type { PostgresBinaries } from './binaries.ts';
import { SUPERUSER } from './cluster.ts';
import { isAlive, pidIn, processesTitled, runsWith, stopOrphan } from './orphan.ts';
import { launch, type ServerProcess, waitUntilReady } from './process.ts';

/** For a record that must last: durable, and sized for a developer's machine. */
const DURABLE_SETTINGS: Readonly<Record<string, string>> = {
  shared_buffers: '128MB',
  max_connections: '200',
  max_wal_size: '2GB',
  fsync: 'on',
  synchronous_commit: 'on',
  jit: 'off',
};

export interface StartPostgres {
  binaries: PostgresBinaries;
  dataDir: string;
  logFile: string;
  password: string;
  /** On 127.0.0.1, the only address that it listens on. */
  port: number;
  /** Made unless it is there. */
  database?: string;
  /** As in postgresql.conf; default `DURABLE_SETTINGS`. */
  settings?: Readonly<Record<string, string>>;
  /** Called when it answers that it is replaying its log, which may take longer than a start. */
  onRecovery?: () => void;
}

/**
 * Starts the cluster in `dataDir` and waits until it answers.
 *
 * @throws {EmbeddedServerError} when it does not
 */
export async function startPostgres(options: StartPostgres): Promise<ServerProcess> {
  const { binaries, dataDir, port, password, logFile } = options;
  const settings = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    cluster_name: clusterName(dataDir),
    timezone: 'UTC',
    log_timezone: 'UTC',
    ...(options.settings ?? DURABLE_SETTINGS),
  };
  const args = ['-D', dataDir, '-p', String(port)];
  for (const [name, value] of Object.entries(settings)) args.push('-c', `${name}=${value}`);

  await stopStragglers(dataDir);
  const command = runAs(serverAccount(dataDir), binaries.postgres, args, [dataDir]);
  const server = await launch('PostgreSQL', command, logFile);
  const url = postgresUrl(port, password);
  try {
    // SCRAM proves the server to us as well: another server on this port would not pass.
    await waitUntilReady(server, () => query(url, 'SELECT 1'), isRecovering, options.onRecovery);
    if (options.database) await ensureDatabase(url, options.database);
  } catch (error) {
    await stopPostgres(server);
    throw error;
  }
  return server;
}

/** ERRCODE_CANNOT_CONNECT_NOW. */
const isRecovering = (error: unknown) => (error as { code?: string }).code === '57P03';

/** Stands in the title of each of the server's processes. */
const clusterName = (dataDir: string) =>
  `annals-${createHash('sha256').update(dataDir).digest('hex').slice(0, 16)}`;

/**
 * Backends that are computing outlive a killed server until they next wait for something, and
 * PostgreSQL rightly refuses to start beside them.
 */
async function stopStragglers(dataDir: string): Promise<void> {
  const server = pidIn(join(dataDir, 'postmaster.pid'));
  if (server !== undefined && runsWith(server, dataDir)) return; // then they are none, and it will tell
  const stragglers = processesTitled(`postgres: ${clusterName(dataDir)}: `);
  await Promise.all(stragglers.map((pid) => stopOrphan(pid, ['SIGQUIT'])));
}

/**
 * Stops the server on `dataDir` that a killed supervisor left behind, or clears away its pid
 * file. Only the holder of the supervisor's lock may call this.
 */
export async function stopOrphanedPostgres(
  dataDir: string,
  log: (line: string) => void,
): Promise<void> {
  const pidFile = join(dataDir, 'postmaster.pid');
  const pid = pidIn(pidFile);
  if (pid === undefined || !isAlive(pid)) return; // PostgreSQL itself sees that the file is stale
  if (runsWith(pid, dataDir)) {
    log(`stopping the PostgreSQL (pid ${pid}) of an earlier supervisor`);
    await stopOrphan(pid, ['SIGINT', 'SIGQUIT']);
  } else {
    // After a restart of the machine or container the number is another program's, which
    // PostgreSQL would take for a server of this cluster and refuse to start.
    rmSync(pidFile);
  }
}

/** Fast shutdown (clients are cut off, all is written), then ever less polite. */
export function stopPostgres(server: ServerProcess): Promise<void> {
  return server.stop(['SIGINT', 'SIGQUIT']);
}

/**
 * The superuser's URL of a cluster that this module made. It says that there is no TLS, lest a
 * PGSSLMODE meant for another server demands it.
 *
 * @param database - default `postgres`, which is there from the start
 */
export function postgresUrl(port: number, password: string, database = 'postgres'): string {
  return `postgresql://${SUPERUSER}:${password}@127.0.0.1:${port}/${database}?sslmode=disable`;
}

async function ensureDatabase(url: string, name: string): Promise<void> {
  const found = await query(
    url,
    `SELECT FROM pg_database WHERE datname = ${pg.escapeLiteral(name)}`,
  );
  if (found === 0) await query(url, `CREATE DATABASE ${pg.escapeIdentifier(name)}`);
}

/** The number of rows. */
async function query(connectionString: string, sql: string): Promise<number | null> {
  const client = new Connection({
    connectionString,
    connectionTimeoutMillis: 5000,
    query_timeout: 10_000,
  });
  try {
    await client.connect();
    return (await client.query(sql)).rowCount;
  } finally {
    await client.end().catch(() => {});
  }
}
