import { Redis } from 'ioredis';
import pg from 'pg';

import { UnavailableError } from '../errors.ts';

/** Milliseconds in which a server has to answer. */
const TIMEOUT_MS = 5000;

/** @throws {UnavailableError} when PostgreSQL does not answer a query in 5 s, saying where and why */
export async function checkPostgres(url: string): Promise<void> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: TIMEOUT_MS,
    query_timeout: TIMEOUT_MS,
  });
  client.on('error', () => {}); // it also rejects what is under way
  try {
    await client.connect();
    await client.query('SELECT 1');
  } catch (error) {
    throw unreachable('PostgreSQL', url, 'DATABASE_URL', error);
  } finally {
    client.end().catch(() => {}); // not waited for: a server that hangs does not say goodbye
  }
}

/** @throws {UnavailableError} when Redis does not answer a PING in 5 s, saying where and why */
export async function checkRedis(url: string): Promise<void> {
  const client = new Redis(url, {
    lazyConnect: true,
    connectTimeout: TIMEOUT_MS,
    commandTimeout: TIMEOUT_MS,
    retryStrategy: () => null,
  });
  let reason: unknown;
  client.on('error', (error) => (reason = error)); // says more than the rejection does
  try {
    await client.connect();
    await client.ping();
  } catch (error) {
    throw unreachable('Redis', url, 'REDIS_URL', reason ?? error);
  } finally {
    client.disconnect();
  }
}

function unreachable(what: string, url: string, variable: string, cause: unknown) {
  const { host, pathname } = new URL(url); // without user and password
  return new UnavailableError(
    `${what} at ${host}${pathname} does not answer: ${reasonOf(cause)}. Is it running, and ${variable} right?`,
    { cause },
  );
}

/** Node reports a host with several addresses as an error without a message. */
export function reasonOf(cause: unknown): string {
  if (cause instanceof AggregateError) return cause.errors.map(reasonOf).join(', ');
  return cause instanceof Error ? cause.message : String(cause);
}
