import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';

import type { ServerConfig } from '../config.ts';
import { EmbeddedServerError } from '../errors.ts';

/** Where the queues go, and why. */
type QueueChoice = { why: string; remember?: boolean } & (
  | { kind: 'redis' | 'postgres' }
  | { kind: 'private redis'; program: string }
);

/**
 * @throws {EmbeddedServerError} when a Redis is demanded, and there is none
 */
export function chooseQueue(config: ServerConfig, dataDir: string): QueueChoice {
  const wish = config.ANNALS_QUEUE_BACKEND;
  if (wish === 'postgres')
    return { kind: 'postgres', why: 'on PostgreSQL (ANNALS_QUEUE_BACKEND=postgres)' };
  if (config.REDIS_URL !== undefined) return { kind: 'redis', why: 'Redis, as REDIS_URL says' };

  const redis = findRedisServer();
  // Jobs may be waiting where they were put last time; another choice would forget them.
  const before = wish === 'auto' ? rememberedQueue(dataDir) : undefined;
  if (before === 'postgres') {
    return {
      kind: 'postgres',
      why: `on PostgreSQL, as before (chosen in ${queueFile(config.ANNALS_DATA_DIR)}; ANNALS_QUEUE_BACKEND=redis changes it)`,
    };
  }
  if ('program' in redis) {
    return {
      kind: 'private redis',
      program: redis.program,
      why: `private redis-server ${redis.version} (REDIS_URL is not set), data in ${join(config.ANNALS_DATA_DIR, 'redis')}`,
      remember: wish === 'auto',
    };
  }
  if (wish === 'redis' || before === 'private redis') {
    const reason =
      wish === 'redis'
        ? 'ANNALS_QUEUE_BACKEND=redis'
        : `the queues of ${config.ANNALS_DATA_DIR} are in a private Redis`;
    throw new EmbeddedServerError(
      `${reason}, REDIS_URL is not set, and ${redis.problem}. Install redis-server, set REDIS_URL, ` +
        'or set ANNALS_QUEUE_BACKEND=postgres, which begins new queues there.',
    );
  }
  return {
    kind: 'postgres',
    why: `on PostgreSQL (REDIS_URL is not set, and ${redis.problem})`,
    remember: true,
  };
}

/**
 * A private Redis belongs to the data folder, whatever database a process is configured to write
 * to. Each database has queues of its own in it: a worker of another would take the jobs, write
 * them where nobody looks for them, and acknowledge them.
 */
export function queuePrefix(config: ServerConfig, kind: QueueChoice['kind']): string {
  const { ANNALS_QUEUE_PREFIX: prefix, DATABASE_URL: url } = config;
  if (kind !== 'private redis' || url === undefined) return prefix;
  const { host, pathname } = new URL(url);
  const database = createHash('sha256').update(`${host}${pathname}`).digest('hex');
  return `${prefix}_${database.slice(0, 8)}`;
}

/** Oldest Redis that BullMQ works with. */
const OLDEST_REDIS = [6, 2] as const;

function findRedisServer(): { program: string; version: string } | { problem: string } {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter).filter(Boolean)) {
    const program = resolve(folder, 'redis-server');
    let printed: string;
    try {
      printed = execFileSync(program, ['--version'], {
        encoding: 'utf8',
        timeout: 5000,
        stdio: ['ignore', 'pipe', 'ignore'],
      });
    } catch {
      continue; // not there, or not a program for this machine
    }
    const [, version = '', major, minor] = /v=((\d+)\.(\d+)\S*)/.exec(printed) ?? [];
    const newEnough =
      Number(major) > OLDEST_REDIS[0] ||
      (Number(major) === OLDEST_REDIS[0] && Number(minor) >= OLDEST_REDIS[1]);
    return newEnough
      ? { program, version }
      : { problem: `${program} is older than ${OLDEST_REDIS.join('.')}` };
  }
  return { problem: 'redis-server is not on the PATH' };
}

const queueFile = (dataDir: string) => join(dataDir, 'queues');

function rememberedQueue(dataDir: string): string | undefined {
  try {
    return readFileSync(queueFile(dataDir), 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** Keeps the first choice: of two processes at once the later finds the file there, and whole. */
export function rememberQueue(dataDir: string, kind: string): void {
  const draft = `${queueFile(dataDir)}.${process.pid}`;
  writeFileSync(draft, `${kind}\n`);
  try {
    linkSync(draft, queueFile(dataDir));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    rmSync(draft, { force: true });
  }
}
