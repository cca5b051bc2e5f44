import type { Redis } from 'ioredis';

import { failed, ok, warning, type Verdict } from './finding.ts';

/** A check that needs Redis to answer; `info` is what INFO says. */
export type RedisCheck = (info: ReadonlyMap<string, string>, client: Redis) => Promise<Verdict>;

const OLDEST_VERSION = [6, 2] as const;

/** INFO is allowed where a managed Redis forbids CONFIG. */
export async function readInfo(client: Redis): Promise<Map<string, string>> {
  const lines = (await client.info()).split('\r\n').filter((line) => line.includes(':'));
  return new Map(
    lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]),
  );
}

export const checkVersion: RedisCheck = async (info) => {
  const version = info.get('redis_version') ?? '0';
  const valkey = info.get('valkey_version');
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [oldMajor, oldMinor] = OLDEST_VERSION;
  if (major > oldMajor || (major === oldMajor && minor >= oldMinor)) {
    return ok(valkey === undefined ? version : `Valkey ${valkey}`);
  }
  return failed(`${version} is older than ${OLDEST_VERSION.join('.')}`, 'Upgrade Redis.');
};

export const checkRole: RedisCheck = async (info) => {
  if (info.get('role') !== 'master') {
    return failed('the server is a replica', 'Point REDIS_URL at the primary.');
  }
  if (info.get('cluster_enabled') === '1') {
    return failed(
      'the server is part of a cluster, which spreads the keys of a queue',
      'Use a Redis without cluster mode.',
    );
  }
  return ok('primary');
};

export const checkEviction: RedisCheck = async (info) => {
  const policy = info.get('maxmemory_policy') ?? 'noeviction';
  const limit = Number(info.get('maxmemory') ?? 0);
  const used = Number(info.get('used_memory') ?? 0);
  const advice =
    'CONFIG SET maxmemory-policy noeviction (redis.conf: maxmemory-policy noeviction).';
  if (policy !== 'noeviction') {
    return limit > 0
      ? failed(`maxmemory-policy is ${policy}: a full Redis drops queued events`, advice)
      : warning(`maxmemory-policy is ${policy}, harmless as long as maxmemory is not set`, advice);
  }
  if (limit > 0 && used > 0.8 * limit) {
    return warning(
      `noeviction, and ${Math.round((100 * used) / limit)} % of maxmemory is used; a full Redis takes no events`,
      'Start workers if queues are long, or raise maxmemory.',
    );
  }
  return ok(
    limit > 0 ? `noeviction, ${Math.round((100 * used) / limit)} % of maxmemory used` : policy,
  );
};

export const checkPersistence: RedisCheck = async (info, client) => {
  const advice =
    'CONFIG SET appendonly yes (redis.conf: appendonly yes), with appendfsync everysec or always.';
  const failing = [
    'aof_last_write_status',
    'aof_last_bgrewrite_status',
    'rdb_last_bgsave_status',
  ].filter((name) => (info.get(name) ?? 'ok') !== 'ok');
  if (failing.length > 0) {
    return failed(`${failing.join(', ')}: not ok`, 'Its log says why; often the disk is full.');
  }
  if (info.get('aof_enabled') === '1') {
    const appendfsync = await config(client, 'appendfsync');
    return appendfsync === 'no'
      ? warning(
          'append-only file, appendfsync=no: a crash of the machine loses up to half a minute',
          advice,
        )
      : ok(`append-only file${appendfsync === undefined ? '' : `, appendfsync=${appendfsync}`}`);
  }
  const save = await config(client, 'save');
  if (save === undefined) {
    return warning(
      'no append-only file, and CONFIG is forbidden',
      'Ask its provider what a restart loses.',
    );
  }
  return save === ''
    ? failed('none: what is queued is gone when it stops', advice)
    : warning(
        `snapshots only (save ${save}): a crash loses what was queued since the last`,
        advice,
      );
};

async function config(client: Redis, name: string): Promise<string | undefined> {
  try {
    return (await client.config('GET', name))[1];
  } catch {
    return undefined; // forbidden
  }
}
