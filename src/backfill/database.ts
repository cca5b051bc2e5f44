import pg from 'pg';

/** A connection within a transaction, or a pool outside of one. */
export type Sql = Pick<pg.Pool, 'query'>;

export function openPool(databaseUrl: string, connections: number): pg.Pool {
  const pool = new pg.Pool({
    connectionString: databaseUrl,
    max: connections,
    connectionTimeoutMillis: 5000,
    keepAlive: true,
    application_name: 'annals backfill',
  });
  pool.on('error', () => {}); // an idle connection was cut off; the next query opens another
  // One that breaks at work also rejects the statement; without a listener it ends the process.
  pool.on('connect', (client) => client.on('error', () => {}));
  return pool;
}

export interface TransactionOptions {
  isolation?: 'READ COMMITTED' | 'REPEATABLE READ';
  /** Milliseconds that a statement may take. Default 30,000. */
  statementTimeoutMs?: number;
  /** What comes of it is thrown away. Default false. */
  dryRun?: boolean;
}

/**
 * Runs `work` as one transaction that never waits long for a lock, and that ends on the server by
 * itself when its process stops in the middle of it: a worker that is frozen cannot hold a lane.
 * Compiling a statement of this size (JIT) takes longer than it saves.
 */
export async function inTransaction<T>(
  pool: pg.Pool,
  work: (sql: Sql) => Promise<T>,
  {
    isolation = 'READ COMMITTED',
    statementTimeoutMs = 30_000,
    dryRun = false,
  }: TransactionOptions = {},
): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query(`BEGIN ISOLATION LEVEL ${isolation};
      SET LOCAL lock_timeout = '1s';
      SET LOCAL statement_timeout = ${statementTimeoutMs};
      SET LOCAL idle_in_transaction_session_timeout = '20s';
      SET LOCAL jit = off`);
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
