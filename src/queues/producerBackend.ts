import { PostgresQueueBackend, type BackendFactory, type PostgresConnectionOptions } from 'bullmq';
import pg from 'pg';

import { SharedConnection } from './poolShare.ts';

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
> = (name, opts) =>
  new PostgresQueueBackend(new SharedConnection(opts.connection), name, opts, true);
