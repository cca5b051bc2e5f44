import { setTimeout as sleep } from 'node:timers/promises';

import { UnavailableError } from './errors.ts';

/** SQLSTATEs, or their classes, of a PostgreSQL that cannot serve now and may be able to later. */
const SQL_OUTAGES = new Set([
  '08', // the connection broke
  '53', // out of connections, memory or disk
  '57', // shutting down, starting up, or told to cancel
  '58', // its files fail it
  '25006', // read-only: it is a standby, until it is promoted
  '40001', // another transaction was in the way
  '40P01', // a deadlock was broken
]);

/** What a Redis that cannot serve now answers, alone or within what a script answers. */
const REDIS_OUTAGES =
  /\b(?:LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MISCONF|NOREPLICAS|UNBLOCKED|BUSY|OOM)\b/;

/** Errors of Node.js's sockets and of its resolver. */
const SOCKET_OUTAGES =
  /^(?:ECONN\w+|EPIPE|ETIMEDOUT|EHOSTUNREACH|EHOSTDOWN|ENETUNREACH|ENETDOWN|ENOTFOUND|EAI_AGAIN|ENOENT|EADDRNOTAVAIL)$/;

/** Errors that `pg` and `ioredis` make themselves; these have neither a code nor a class. */
const CLIENT_OUTAGES =
  /^(?:Connection (?:terminated|ended)|Connection is closed|Client has encountered|Client was closed|Socket (?:timeout|closed)|Command timed out|Query read timeout|timeout (?:expired|exceeded)|connect ETIMEDOUT)/i;

/**
 * Whether an error of `pg` or `ioredis` says that the server is away, whichever way: gone, silent,
 * starting, full, failing over. Everything else (a wrong password, an unknown database, a wrong
 * call) is as it is, however long one waits.
 */
export function isOutage(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error instanceof UnavailableError) return true;
  const code = 'code' in error ? String(error.code) : '';
  if (/^[0-9A-Z]{5}$/.test(code) && 'severity' in error) {
    return SQL_OUTAGES.has(code) || SQL_OUTAGES.has(code.slice(0, 2));
  }
  if (error.name === 'ReplyError') return REDIS_OUTAGES.test(error.message);
  return SOCKET_OUTAGES.test(code) || CLIENT_OUTAGES.test(error.message);
}

/** An error in a line. Node.js reports a host of several addresses without a message. */
export function reasonOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(reasonOf).join(', ');
  return error instanceof Error ? error.message : String(error);
}

/** Where a server is, without user and password. */
export function addressOf(url: string): string {
  const { host, pathname } = new URL(url);
  return `${host || 'localhost'}${pathname}`;
}

/** Milliseconds between two attempts to reach a server; doubles from the first to the last. */
const RETRY_MS = { first: 100, last: 1000 };

/**
 * Runs `work` until it fails for something else than an outage, or succeeds.
 *
 * @param onAway - told of each attempt that met the outage
 * @throws what `work` throws, if no outage, or the outage itself once `signal` is aborted
 *
 * @example await outlast(() => client.query(sql), { onAway: (error) => log.warn(error.message) });
 */
export async function outlast<T>(
  work: () => Promise<T>,
  { signal, onAway }: { signal?: AbortSignal; onAway?: (error: Error) => void } = {},
): Promise<T> {
  for (let delayMs = RETRY_MS.first; ; delayMs = Math.min(delayMs * 2, RETRY_MS.last)) {
    try {
      return await work();
    } catch (error) {
      if (signal?.aborted || !isOutage(error)) throw error;
      onAway?.(error as Error);
      await sleep(delayMs, undefined, signal && { signal }).catch(() => {
        throw error;
      });
    }
  }
}
