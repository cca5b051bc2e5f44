import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';

import { Redis } from 'ioredis';

import { onPath } from '../../test/support/programs.ts';
import { withClient } from '../backfill/data.ts';
import type { Place } from '../contestants/contestant.ts';
import { openServers } from '../servers.ts';

/** Where all contestants of a run take their turns. */
export interface Ground {
  place: Place;
  /** Null without a `redis-server` on the PATH. */
  redis: Redis | null;
  /** CPU seconds that each has taken since its start; null where the system does not tell. */
  cpuSeconds(): { postgres: number | null; redis: number | null };
  close(): Promise<void>;
}

export async function openGround(): Promise<Ground> {
  const servers = await openServers('bench', { withRedis: onPath('redis-server') !== undefined });
  const { folder, postgres, redis } = servers;
  const client = redis ? new Redis(redis.url) : null;
  const work = join(folder, 'work');
  mkdirSync(work);
  return {
    place: { databaseUrl: postgres.url, redisUrl: redis?.url ?? '', folder: work },
    redis: client,
    cpuSeconds: () => ({
      postgres: cpuOfFamily(postgres.pid),
      redis: redis ? cpuOfFamily(redis.pid) : null,
    }),
    close: async () => {
      client?.disconnect();
      await servers.close();
    },
  };
}

/** What Linux counts in `/proc/PID/stat`, in ticks of which a second has a hundred. */
const TICKS_PER_SECOND = 100;

/** CPU seconds of a server and its processes, those that have ended included. */
function cpuOfFamily(pid: number): number | null {
  const own = readStat(pid);
  if (!own) return null;
  let ticks = own.ticks + own.ticksOfEnded;
  for (const name of readdirSync('/proc')) {
    const stat = /^\d+$/.test(name) ? readStat(Number(name)) : null;
    if (stat?.parent === pid) ticks += stat.ticks;
  }
  return ticks / TICKS_PER_SECOND;
}

function readStat(pid: number): { parent: number; ticks: number; ticksOfEnded: number } | null {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return null; // it has ended, or this is no Linux
  }
  // The program's name, in parentheses, may hold anything; after it stand the state, the parent, …
  const fields = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  const [parent = 0, user = 0, system = 0, endedUser = 0, endedSystem = 0] = [
    fields[1],
    ...fields.slice(11, 15),
  ];
  return { parent, ticks: user + system, ticksOfEnded: endedUser + endedSystem };
}

const POSTGRES_SETTINGS = [
  'server_version',
  'shared_buffers',
  'max_wal_size',
  'fsync',
  'synchronous_commit',
  'full_page_writes',
  'wal_compression',
  'jit',
] as const;

/** What the figures hold for. */
export async function describeGround({ place, redis }: Ground) {
  const postgres = await withClient(place.databaseUrl, async (client) => {
    const { rows } = await client.query<{ name: string; value: string }>(
      `SELECT name, current_setting(name) AS value FROM unnest($1::text[]) name`,
      [POSTGRES_SETTINGS],
    );
    return Object.fromEntries(rows.map(({ name, value }) => [name, value]));
  });
  const version = /redis_version:(\S+)/.exec((await redis?.info('server')) ?? '')?.[1] ?? null;
  const [processor] = cpus();
  return {
    machine: {
      cores: availableParallelism(),
      processor: processor?.model ?? 'unknown',
      memoryGb: Math.round(totalmem() / 2 ** 30),
      system: `${process.platform} ${process.arch}`,
      node: process.version,
    },
    postgres,
    redis: version ? { version, appendonly: 'yes', appendfsync: 'everysec' } : null,
  };
}
