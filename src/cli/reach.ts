import { Redis } from 'ioredis';

import { Connection } from '../database/connection.ts';
import { ConfigError, UnavailableError } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { addressOf, isOutage, outlast, reasonOf } from '../outage.ts';
import { OutageLog } from '../outageLog.ts';
import { inspectRedis } from '../queues/redisSafety.ts';
import { untilAborted } from './stopped.ts';

/** Milliseconds in which a server has to answer. */
const TIMEOUT_MS = 5000;

/** A server that a command needs. */
export interface Server {
  what: 'PostgreSQL' | 'Redis';
  url: string;
}

/**
 * @throws {UnavailableError} when the server does not answer in 5 s, saying where and why
 * @throws {ConfigError} when it answers that it does not know us or what we want
 */
export async function checkServer({ what, url }: Server): Promise<void> {
  try {
    await (what === 'Redis' ? withRedis(url, (client) => client.ping()) : askPostgres(url));
  } catch (cause) {
    const variable = what === 'Redis' ? 'REDIS_URL' : 'DATABASE_URL';
    const reason = reasonOf(cause).replace(/\.$/, '');
    if (!isOutage(cause)) {
      throw new ConfigError(
        `${what} at ${addressOf(url)} refuses: ${reason}. Is ${variable} right?`,
        { cause },
      );
    }
    throw new UnavailableError(
      `${what} at ${addressOf(url)} does not answer: ${reason}. Is it running, and ${variable} right?`,
      { cause },
    );
  }
}

/**
 * Waits until the server answers, however long that takes, and says so in a line. Once `signal` is
 * aborted it waits no longer.
 *
 * @throws {ConfigError} when it answers that it does not know us or what we want
 */
export async function waitForServer(
  server: Server,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  const outage = new OutageLog(log, `${server.what} at ${addressOf(server.url)}`);
  const answer = outlast(() => checkServer(server), {
    signal,
    onAway: (error) => outage.away(reasonOf(error.cause)),
  }).then(
    () => outage.back(),
    (error: unknown) => {
      if (!signal.aborted) throw error;
    },
  );
  await Promise.race([answer, untilAborted(signal)]);
}

/**
 * Makes sure that a Redis keeps what it is given, and warns where it may not.
 *
 * @throws {ConfigError} when it may evict jobs, with the line to change
 */
export async function checkRedisSafety(url: string, log: Logger): Promise<void> {
  const { refusal, warnings } = await withRedis(url, inspectRedis);
  const where = `Redis at ${addressOf(url)}`;
  for (const warning of warnings) log.warn(`${where}: ${warning}`);
  if (refusal !== undefined) throw new ConfigError(`${where} is no place for queues: ${refusal}`);
}

async function askPostgres(url: string): Promise<void> {
  const client = new Connection({
    connectionString: url,
    connectionTimeoutMillis: TIMEOUT_MS,
    query_timeout: TIMEOUT_MS,
  });
  try {
    await client.connect();
    await client.query('SELECT 1');
  } finally {
    client.end().catch(() => {}); // not waited for: a server that hangs does not say goodbye
  }
}

async function withRedis<T>(url: string, ask: (client: Redis) => Promise<T>): Promise<T> {
  const client = new Redis(url, {
    lazyConnect: true,
    connectTimeout: TIMEOUT_MS,
    commandTimeout: TIMEOUT_MS,
    retryStrategy: () => null,
    maxRetriesPerRequest: 0,
  });
  let reason: Error | undefined;
  client.on('error', (error: Error) => (reason ??= error)); // says more than the rejection does
  try {
    await client.connect();
    const answer = await ask(client);
    if (reason !== undefined) throw reason; // such as no database of that number
    return answer;
  } catch (error) {
    throw reason ?? error;
  } finally {
    client.disconnect();
  }
}
