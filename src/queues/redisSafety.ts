import type { Redis } from 'ioredis';

/** What a Redis is found to be unfit or risky for. */
export interface RedisSafety {
  /** Why no queue may live there, and the line that changes it. */
  refusal?: string;
  /** What may be lost there, a line each. */
  warnings: string[];
}

const CHANGE =
  'CONFIG SET maxmemory-policy noeviction (in redis.conf: maxmemory-policy noeviction)';

/**
 * Looks whether a Redis keeps what it is given. Jobs are keys without a lifetime, and the locks
 * that keep a job with its worker are keys with one, so every policy but `noeviction` takes either
 * away as soon as `maxmemory` is reached. INFO says all that matters, and is allowed where a
 * managed Redis forbids CONFIG.
 */
export async function inspectRedis(client: Redis): Promise<RedisSafety> {
  const info = new Map(
    (await client.info())
      .split('\r\n')
      .map((line) => line.split(':', 2) as [string, string | undefined]),
  );
  const found: RedisSafety = { warnings: [] };
  const policy = info.get('maxmemory_policy') ?? 'noeviction';
  const limit = Number(info.get('maxmemory') ?? 0);
  if (policy !== 'noeviction') {
    if (limit > 0) {
      found.refusal = `its maxmemory-policy is ${policy}: when its ${limit} bytes are full, it drops queued events. Change it: ${CHANGE}`;
    } else {
      found.warnings.push(
        `its maxmemory-policy is ${policy}, harmless only as long as it has no maxmemory. Better: ${CHANGE}`,
      );
    }
  }
  if (info.get('aof_enabled') === '0') {
    const snapshots = await readSnapshots(client);
    if (snapshots !== undefined) {
      const loss = snapshots === '' ? 'what is queued' : 'what was queued since its last snapshot';
      found.warnings.push(
        `it does not write its data to disk at once: ${loss} is lost when it stops. Better: CONFIG SET appendonly yes (in redis.conf: appendonly yes)`,
      );
    }
  }
  return found;
}

/** The save points; undefined where CONFIG is forbidden, which means that others care for them. */
async function readSnapshots(client: Redis): Promise<string | undefined> {
  try {
    const [, value] = await client.config('GET', 'save');
    return value;
  } catch {
    return undefined;
  }
}
