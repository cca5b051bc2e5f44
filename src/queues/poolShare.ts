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
    // An idle connection was cut off, and the next query opens another. Where it was an outage, the
    // connection on which a worker listens tells of it.
    pool.on('error', () => {});
    found = { key, Client: options.Client, pool, users: 0 };
    shared.push(found);
  }
  found.users++;
  return found;
}

/** The last one to leave ends the pool, which waits for what is under way, and starts nothing more. */
async function leave(one: SharedPool): Promise<void> {
  if (--one.users > 0) return;
  shared.splice(shared.indexOf(one), 1);
  await one.pool.end();
}

/**
 * What one queue, or one worker, has of a pool, in the place of a pool of its own: a third of its
 * connections at most, so that one whose statements wait for locks leaves the others theirs.
 */
class PoolShare {
  readonly #shared: SharedPool;
  #free: number;
  readonly #waiting: (() => void)[] = [];
  #ending: Promise<void> | undefined;

  constructor(options: pg.PoolConfig) {
    this.#shared = join(options);
    this.#free = Math.ceil(this.#shared.pool.options.max / 3);
  }

  connect(): Promise<pg.PoolClient> {
    return this.#ending ? ended() : this.#shared.pool.connect();
  }

  async query(config: string | pg.QueryConfig, values?: unknown[]): Promise<pg.QueryResult> {
    if (this.#free === 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#free--;
    try {
      return await (this.#ending ? ended() : this.#shared.pool.query(config as string, values));
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }

  end(): Promise<void> {
    this.#ending ??= leave(this.#shared);
    return this.#ending;
  }
}

/** In the words of a pool, by which BullMQ knows a call that came too late. */
const ended = () => Promise.reject(new Error('Cannot use a pool after calling end on the pool'));

/**
 * BullMQ's connection to PostgreSQL, of which all in this process that are made from the same options
 * share a pool. BullMQ would give a pool to each queue and each worker, of which a process of Annals
 * has a dozen: connections that are idle most of the time, and of which a server has a hundred.
 */
export class SharedConnection extends PostgresConnection {
  constructor(options: PostgresConnectionOptions) {
    super(options);
    // BullMQ has made a pool, which has connected to nothing, of what it took from the options.
    const pool = new PoolShare((this.pool as pg.Pool).options);
    Object.assign(this, { pool });
  }
}
