import {
  assertSchemaCompatibility,
  PostgresConnection,
  PostgresQueueBackend,
  type BackendFactory,
  type PostgresConnectionOptions,
} from 'bullmq';

import { Connection } from '../database/connection.ts';
import { outlast } from '../outage.ts';

/**
 * BullMQ's connection to PostgreSQL for workers. As BullMQ's client of Redis does by itself, it
 * keeps calls back while the server is away, rather than failing them: BullMQ takes the failure of
 * a call that completes a job for a failure of the job, and repeats a failed fetch without a pause.
 *
 * A call whose answer was lost is made again. What it does then is harmless: a job that is
 * finished already cannot be finished again (BullMQ says so, and the worker goes on), and a job
 * that was handed out to nobody is found when its lock has expired.
 */
class PatientConnection extends PostgresConnection {
  readonly #ended = new AbortController();
  #ready: Promise<void> | undefined;
  #isAway = false;

  constructor(options: PostgresConnectionOptions) {
    super(options);
    this.on('error', () => (this.#isAway = true)); // idle connections report an outage as well
    // BullMQ opens the connection on which it listens by itself, in a module that it keeps here.
    Object.assign(this, { pgModule: { Client: Connection } });
    const query = this.pool.query.bind(this.pool);
    this.pool.query = (text, params) => this.#outlast(() => query(text, params));
  }

  /** BullMQ's own remembers for ever that the first attempt failed. */
  override waitUntilReady(): Promise<void> {
    this.#ready ??= this.#outlast(async () => {
      const client = await this.pool.connect();
      try {
        await assertSchemaCompatibility(client, this.schema);
      } finally {
        client.release();
      }
    });
    return this.#ready;
  }

  override getListenClient(): ReturnType<PostgresConnection['getListenClient']> {
    return this.#outlast(() => super.getListenClient());
  }

  override close(): Promise<void> {
    this.#ended.abort();
    return super.close();
  }

  async #outlast<T>(work: () => Promise<T>): Promise<T> {
    const result = await outlast(work, {
      signal: this.#ended.signal,
      onAway: (error) => this.emit('error', error),
    });
    if (this.#isAway) this.emit('ready');
    this.#isAway = false;
    return result;
  }
}

/** A back end on PostgreSQL for workers. It reports outages as `error` and their end as `ready`. */
export const createPatientPostgresBackend: BackendFactory<
  PostgresQueueBackend,
  PostgresConnectionOptions
> = (name, opts) =>
  new PostgresQueueBackend(new PatientConnection(opts.connection), name, opts, true, name);
