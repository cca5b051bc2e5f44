import { PostgresQueueBackend, type BackendFactory, type PostgresConnectionOptions } from 'bullmq';
import pg from 'pg';

import { SharedConnection } from './poolShare.ts';

/**
 * Jobs in one statement at most. The server parses all of a statement's JSON before it adds any: 16
 * jobs of 500 events take half as much again of its time, each, as four do (docs/performance.md).
 */
const MAX_JOBS = 4;

type Entry = Parameters<PostgresQueueBackend['addJobs']>[0][number];

/**
 * BullMQ's back end on PostgreSQL for producers. BullMQ adds many jobs by way of two temporary
 * tables, which each call makes and drops: that costs some 4 ms, bloats the catalog, and makes every
 * connection of the server forget what it had cached of it. Its function for a single job, called
 * for each of a few in one statement, does without. The order of the jobs is kept, since rows of
 * VALUES are evaluated one after the other; that all are added or none is not promised. It need not
 * be: a producer whose call failed sends all of them again, and an event that comes twice is one row.
 */
class ProducerBackend extends PostgresQueueBackend {
  override async addJobs(entries: Entry[]): Promise<string[]> {
    if (!entries.every(isPlain)) return super.addJobs(entries);
    await this.connection.waitUntilReady();
    const ids: string[] = [];
    for (let from = 0; from < entries.length; from += MAX_JOBS) {
      ids.push(...(await this.#add(entries.slice(from, from + MAX_JOBS))));
    }
    return ids;
  }

  async #add(entries: Entry[]): Promise<string[]> {
    const params: unknown[] = [this.queueName];
    const place = (value: unknown) => `$${params.push(value)}`;
    const calls = entries.map(({ job: { name, data, opts, timestamp }, jobId }) => {
      const { priority = 0, delay = 0, attempts = 1 } = opts;
      const own = [
        jobId ?? '',
        name,
        data,
        JSON.stringify(opts),
        priority,
        delay,
        timestamp,
        attempts,
      ];
      return `(add_job($1, ${own.map(place).join(', ')}, NULL, NULL, NULL, NULL, NULL, false))`;
    });
    const { rows } = await this.connection.pool.query<{ id: string }>(
      `SELECT id FROM (VALUES ${calls.join(', ')}) AS added (id)`,
      params,
    );
    return rows.map(({ id }) => id);
  }
}

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
