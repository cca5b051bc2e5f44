import { PostgresQueueBackend, type BackendFactory, type PostgresConnectionOptions } from 'bullmq';
import pg from 'pg';

import { SharedConnection } from './poolShare.ts';

type Entry = Parameters<PostgresQueueBackend['addJobs']>[0][number];

/**
 * BullMQ's back end on PostgreSQL for producers. BullMQ adds many jobs by way of two temporary
 * tables, which each call makes and drops: that costs some 4 ms, bloats the catalog, and makes every
 * connection of the server forget what it had cached of it. Its function for a single job does
 * without. That all of several are added or none is not promised. It need not
 * be: a producer whose call failed sends it again, and an event that comes twice is one row.
 */
class ProducerBackend extends PostgresQueueBackend {
  override async addJobs(entries: Entry[]): Promise<string[]> {
    if (!entries.every(isPlain)) return super.addJobs(entries);
    await this.connection.waitUntilReady();
    const ids: string[] = [];
    for (const entry of entries) ids.push(await this.#add(entry));
    return ids;
  }

  async #add({ job: { name, data, opts, timestamp }, jobId }: Entry): Promise<string> {
    const { priority = 0, delay = 0, attempts = 1 } = opts;
    const { rows } = await this.connection.pool.query<{ id: string }>(ADD, [
      this.queueName,
      jobId ?? '',
      name,
      data,
      JSON.stringify(opts),
      priority,
      delay,
      timestamp,
      attempts,
    ]);
    return (rows[0] as { id: string }).id;
  }
}

const ADD =
  'SELECT add_job($1, $2, $3, $4, $5, $6, $7, $8, $9, NULL, NULL, NULL, NULL, NULL, false) AS id';

/** Whether a job is on its own, and goes to the end of its queue. */
const isPlain = ({ job, parentKeyOpts }: Entry) =>
  parentKeyOpts?.parentKey === undefined &&
  (job.parent ?? job.deduplicationId ?? job.repeatJobKey) === undefined &&
  !job.opts.lifo;

/**
 * Has PostgreSQL compress what a connection adds with LZ4, where it was built with it: its own method
 * is more than a third of what adding a job costs (docs/performance.md). Each value says how it is
 * compressed, so a table may hold both.
 */
export async function preferLz4(client: pg.ClientBase): Promise<void> {
  await client.query(PREFER_LZ4).catch((error: unknown) => {
    if (!(error instanceof pg.DatabaseError)) throw error; // it was not the server that answered
  });
}

const PREFER_LZ4 = `SELECT set_config(name, 'lz4', false) FROM pg_settings
  WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)`;

/** A back end on PostgreSQL for producers. */
export const createProducerBackend: BackendFactory<
  PostgresQueueBackend,
  PostgresConnectionOptions
> = (name, opts) => new ProducerBackend(new SharedConnection(opts.connection), name, opts, true);
