import { EventEmitter } from 'node:events';

import { PostgresConnection, type PostgresConnectionOptions } from 'bullmq';
import pg from 'pg';

/** A pool and how many use it. */
interface SharedPool {
  /** What its connections are made from: the text of the options, and their class. */
  key: string;
  Client: unknown;
  pool: pg.Pool;
  users: number;
}

/** The pools of this process. */
const shared: SharedPool[] = [];

/** Finds the pool of such connections, or makes it; nothing connects until the first query. */
function join(options: pg.PoolConfig): SharedPool {
  const key = JSON.stringify(options);
  let found = shared.find((one) => one.key === key && one.Client === options.Client);
  if (!found) {
    const pool = new pg.Pool(options);
    pool.setMaxListeners(0); // each of its users hears of its faults,
    pool.on('error', () => {}); // … and if there is none any more, that must not end the process
    found = { key, Client: options.Client, pool, users: 0 };
    shared.push(found);
  }
  found.users++;
  return found;
}

/** The last one to leave ends the pool. */
async function leave(one: SharedPool): Promise<void> {
  if (--one.users > 0) return;
  shared.splice(shared.indexOf(one), 1);
  await one.pool.end();
}

/** What one connection of BullMQ's has of a pool, in the place of a pool of its own. */
class PoolShare extends EventEmitter<{ error: [Error] }> {
  readonly #shared: SharedPool;
  readonly #running = new Set<Promise<unknown>>();
  readonly #onError = (error: Error) => this.emit('error', error);
  #ending: Promise<void> | undefined;

  constructor(options: pg.PoolConfig) {
    super();
    this.#shared = join(options);
    this.#shared.pool.on('error', this.#onError);
  }

  connect(): Promise<pg.PoolClient> {
    return this.#ending ? ended() : this.#shared.pool.connect();
  }

  query(config: string | pg.QueryConfig, values?: unknown[]): Promise<pg.QueryResult> {
    if (this.#ending) return ended();
    const running = this.#shared.pool.query(config as string, values);
    this.#running.add(running);
    return running.finally(() => this.#running.delete(running));
  }

  /** Resolves when its own queries are done. */
  end(): Promise<void> {
    this.#ending ??= (async () => {
      await Promise.allSettled(this.#running);
      this.#shared.pool.off('error', this.#onError);
      await leave(this.#shared);
    })();
    return this.#ending;
  }
}

/** In the words of a pool, by which BullMQ knows a call that came too late. */
const ended = () => Promise.reject(new Error('Cannot use a pool after calling end on the pool'));

/**
 * BullMQ's connection to PostgreSQL, of which all in this process that are made from the same options
 * share a pool. BullMQ would give a pool to each queue and each worker, of which a process of Annals
 * has a dozen: connections that are idle most of the time, that a server has a hundred of, and each
 * of which has to learn the same catalog and functions.
 */
export class SharedConnection extends PostgresConnection {
  constructor(options: PostgresConnectionOptions) {
    super(options);
    // BullMQ has made a pool, which has connected to nothing, of what it took from the options.
    const pool = new PoolShare((this.pool as pg.Pool).options);
    pool.on('error', (error) => {
      if (this.listenerCount('error') > 0) this.emit('error', error);
    });
    Object.assign(this, { pool });
  }
}
