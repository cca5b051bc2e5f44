import type { Duplex } from 'node:stream';

import pg from 'pg';

/**
 * A connection whose loss never ends the process. The loss rejects the statement under way, or the
 * next one; it is an `error` event as well, and Node ends a process in which nobody listens to one.
 * Listening is not enough: who gets a connection from a promise begins to a moment after it is
 * open, and a server that is just going down greets and says goodbye in one packet.
 */
export class Connection extends pg.Client {
  override emit(event: string | symbol, ...args: unknown[]): boolean {
    if (event === 'error' && this.listenerCount(event) === 0) return false;
    return super.emit(event, ...args);
  }

  /** Cuts it off without a goodbye, which a server that hangs would never take. */
  cut(): void {
    (this as unknown as { connection: { stream: Duplex } }).connection.stream.destroy();
  }
}

/**
 * A connection on which nothing comes is probed after 5 s and then each second, ten times (Node's own
 * figures): a host that is gone without a word is noticed within 15 s. The system's default is 2 h.
 */
export const KEEP_ALIVE = { keepAlive: true, keepAliveInitialDelayMillis: 5000 } as const;

/** Makes a pool of such connections; nothing connects until the first query. */
export function createPool(options: pg.PoolConfig): pg.Pool {
  const pool = new pg.Pool({
    connectionTimeoutMillis: 5000,
    ...KEEP_ALIVE,
    ...options,
    Client: Connection,
  });
  pool.on('error', () => {}); // an idle connection was cut off; the next query opens another
  return pool;
}
