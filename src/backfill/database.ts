import type pg from 'pg';

import { createPool } from '../database/connection.ts';

/** A connection within a transaction, or a pool outside of one. */
export type Sql = Pick<pg.Pool, 'query'>;

export function openPool(databaseUrl: string, connections: number): pg.Pool {
  return createPool({
    connectionString: databaseUrl,
    max: connections,
    application_name: 'annals backfill',
  });
}

export interface TransactionOptions {
  /** Milliseconds that a statement may take. Default 30,000. */
  statementTimeoutMs?: number;
  /** What comes of it is thrown away. Default false. */
  dryRun?: boolean;
}

/**
 * Runs `work` as one transaction that never waits long for a lock, and that ends on the server by
 * itself when its process stops in the middle of it: a worker that is frozen cannot hold a lane, nor
 * can a statement whose process has died (where PostgreSQL can tell while it works).
 * Compiling a statement of this size (JIT) takes longer than it saves. Blocks are read in their
 * order and by one process: a lane goes on behind the last row that it was given.
 */
export async function inTransaction<T>(
  pool: pg.Pool,
  work: (sql: Sql) => Promise<T>,
  { statementTimeoutMs = 30_000, dryRun = false }: TransactionOptions = {},
): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query(`BEGIN ISOLATION LEVEL READ COMMITTED;
      SET LOCAL lock_timeout = '1s';
      SET LOCAL statement_timeout = ${statementTimeoutMs};
      SET LOCAL idle_in_transaction_session_timeout = '20s';
      SET LOCAL jit = off;
      SET LOCAL synchronize_seqscans = off;
      SET LOCAL max_parallel_workers_per_gather = 0;
      SELECT set_config('client_connection_check_interval', '5s', true) WHERE version() ~ 'linux|apple|bsd'`);
    const result = await work(client);
    await client.query(dryRun ? 'ROLLBACK' : 'COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK').catch((fault: Error) => (broken = fault));
    throw error;
  } finally {
    client.release(broken);
  }
}

/** The only row of a query that has one. */
export async function one<Row extends pg.QueryResultRow>(
  sql: Sql,
  text: string,
  params: unknown[] = [],
): Promise<Row> {
  const { rows } = await sql.query<Row>(text, params);
  return rows[0] as Row;
}
