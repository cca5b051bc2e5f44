import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Closer } from '../closer.ts';
import { loadConfig } from '../config.ts';
import { Connection } from '../database/connection.ts';
import { openServers } from '../embedded/index.ts';
import { takeLease } from '../embedded/lease.ts';
import { isAlive } from '../embedded/orphan.ts';
import { socketFolder } from '../embedded/socket.ts';
import { openQueue, type QueueLocation } from '../queues/backend.ts';
import { EVENT_KINDS } from '../queues/catalogue.ts';
import { folderPrefix, removeLeftovers } from './leftovers.ts';

/** Where a demo runs: nothing was there before it, and nothing is left after it. */
export interface Ground {
  /** Which servers were chosen, and why. */
  explanation: string;
  database: 'embedded' | 'configured';
  databaseUrl: string;
  queue: QueueLocation;
  /** The environment of a process that is to find these servers. */
  env: NodeJS.ProcessEnv;
}

/**
 * Starts embedded servers on a new temporary folder.
 *
 * @param closer - is given what stops and removes them
 * @param useConfigured - whether to take the servers that `env` names, if any, with a database and
 *   a queue prefix of the demo's own there
 */
export async function openGround(
  closer: Closer,
  useConfigured: boolean,
  log: (line: string) => void,
  env: NodeJS.ProcessEnv = process.env,
): Promise<Ground> {
  const name = `annals_demo_${randomBytes(6).toString('hex')}`;
  await removeLeftovers();
  const folder = makeFolder(closer);
  const config = loadConfig({
    ...env,
    ...(!useConfigured && { DATABASE_URL: undefined, REDIS_URL: undefined }),
    ANNALS_DATA_DIR: folder,
    ANNALS_QUEUE_PREFIX: name,
  });
  const servers = await openServers(config, log, { graceMs: 100 });
  let supervisor: number | undefined;
  closer.add('servers', async () => {
    await servers.close();
    // It ends when the servers are gone, and so tells that they are.
    if (supervisor !== undefined) await ended(supervisor);
  });
  const isEmbedded = config.DATABASE_URL === undefined;
  if (isEmbedded || (servers.queue.kind === 'redis' && config.REDIS_URL === undefined)) {
    supervisor = await supervisorOf(folder);
  }
  const databaseUrl = isEmbedded
    ? servers.databaseUrl
    : await createDatabase(closer, servers.databaseUrl, name);
  const queue: QueueLocation =
    servers.queue.kind === 'redis'
      ? { ...servers.queue, kind: 'redis', prefix: name }
      : { kind: 'postgres', url: databaseUrl, prefix: name };
  if (config.REDIS_URL !== undefined) closer.add('queues', () => removeQueues(queue));
  return {
    explanation: servers.explanation,
    database: isEmbedded ? 'embedded' : 'configured',
    databaseUrl,
    queue,
    env: {
      ...env,
      DATABASE_URL: databaseUrl,
      REDIS_URL: queue.kind === 'redis' ? queue.url : undefined,
      ANNALS_QUEUE_BACKEND: queue.kind,
      ANNALS_QUEUE_PREFIX: name,
      ANNALS_DATA_DIR: folder,
      ANNALS_SPOOL_DIR: join(folder, 'spool'),
      // Jobs that wait for a parent are told as warnings, and are what the demo wants.
      ANNALS_LOG_LEVEL: env['ANNALS_LOG_LEVEL'] || 'error',
    },
  };
}

function makeFolder(closer: Closer): string {
  const folder = realpathSync(mkdtempSync(folderPrefix(process.pid)));
  chmodSync(folder, 0o711); // the account that root's PostgreSQL runs as must pass
  closer.add('temporary folder', async () => {
    for (const path of [socketFolder(folder), folder]) {
      rmSync(path, { recursive: true, force: true });
    }
  });
  return folder;
}

async function supervisorOf(dataDir: string): Promise<number> {
  const lease = await takeLease({ dataDir, postgres: false, redis: null });
  await lease.close();
  return lease.pids.supervisor;
}

async function ended(pid: number): Promise<void> {
  while (isAlive(pid)) await sleep(25);
}

/** @returns its URL */
async function createDatabase(closer: Closer, serverUrl: string, name: string): Promise<string> {
  const run = async (sql: string) => {
    const client = new Connection({ connectionString: serverUrl, connectionTimeoutMillis: 5000 });
    try {
      await client.connect();
      await client.query(sql);
    } finally {
      client.end().catch(() => {});
    }
  };
  await run(`CREATE DATABASE ${name}`);
  closer.add('database', () => run(`DROP DATABASE ${name} WITH (FORCE)`));
  return Object.assign(new URL(serverUrl), { pathname: name }).href;
}

async function removeQueues(location: QueueLocation): Promise<void> {
  await Promise.all(
    EVENT_KINDS.map(async (kind) => {
      const queue = openQueue(location, kind);
      await queue.obliterate({ force: true });
      await queue.close();
    }),
  );
}
