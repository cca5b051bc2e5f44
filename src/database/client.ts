import { PrismaPg } from '@prisma/adapter-pg';
import type { SqlQuery } from '@prisma/driver-adapter-utils';

import { PrismaClient } from '../generated/prisma/client.ts';
import { createPool } from './connection.ts';
import { Pipeline, type Step } from './pipeline.ts';

export { Prisma, PrismaClient } from '../generated/prisma/client.ts';

export interface DatabaseOptions {
  /** Connections at most. Default 10. */
  poolSize?: number;
  /** Milliseconds to wait for a new connection. Default 5,000. */
  connectTimeoutMs?: number;
  /** Shown in `pg_stat_activity`. Default `annals`. */
  applicationName?: string;
  /** Whether the process may end while connections are idle, for short scripts. Default false. */
  exitWhenIdle?: boolean;
}

/** Runs a statement whose parameters are text or null, and returns its rows. */
export type RunStatement = <Row>(
  sql: string,
  parameters: readonly (string | null)[],
) => Promise<Row[]>;

/** A pool, as models and as statements of our own. */
export interface Database {
  /** Closes the pool for both with `$disconnect()`. */
  prisma: PrismaClient;
  /**
   * Hands a statement to Prisma's driver adapter, without the client before it. The client writes
   * all parameters as one JSON text and reads that back, and it and the adapter keep the last
   * hundred statements with what they were given, for a debug log: of batches of a megabyte that
   * is a microsecond an event and a hundred megabytes.
   */
  run: RunStatement;
  /** Runs statements in one transaction, as `Pipeline` does. Prisma has no COPY. */
  runTogether: (steps: readonly Step[]) => Promise<void>;
}

/**
 * Makes a Prisma client on a pool of its own; nothing connects until the first query. Close it
 * with `$disconnect()`.
 *
 * @param databaseUrl - `postgresql://…`
 *
 * @example const prisma = createPrismaClient(config.DATABASE_URL);
 */
export const createPrismaClient = (databaseUrl: string, options?: DatabaseOptions): PrismaClient =>
  openDatabase(databaseUrl, options).prisma;

/** Does the same for those who have large statements of their own as well. */
export function openDatabase(databaseUrl: string, options: DatabaseOptions = {}): Database {
  const pool = createPool({
    connectionString: databaseUrl,
    max: options.poolSize ?? 10,
    ...(options.connectTimeoutMs && { connectionTimeoutMillis: options.connectTimeoutMs }),
    application_name: options.applicationName ?? 'annals',
    allowExitOnIdle: options.exitWhenIdle ?? false,
  });
  const adapter = new PrismaPg(pool, { disposeExternalPool: true });
  const connecting = new PrismaPg(pool).connect(); // takes the pool and connects to nothing
  const run: RunStatement = async <Row>(sql: string, parameters: readonly (string | null)[]) => {
    const connection = await connecting;
    const query: SqlQuery = {
      sql,
      args: [...parameters],
      argTypes: parameters.map(() => ({ scalarType: 'string', arity: 'scalar' })),
    };
    try {
      const { columnNames, rows } = await connection.queryRaw(query);
      return rows.map(
        (row) => Object.fromEntries(columnNames.map((name, n) => [name, row[n]])) as Row,
      );
    } finally {
      query.args = []; // what the debug log keeps of it
    }
  };
  const runTogether = async (steps: readonly Step[]) => {
    const client = await pool.connect();
    let isUsable = false;
    try {
      await client.query(new Pipeline(steps)).done;
      isUsable = true;
    } catch (error) {
      // After any other error, such as FATAL, nobody answers on this connection again.
      isUsable = (error as { severity?: unknown }).severity === 'ERROR';
      throw error;
    } finally {
      client.release(!isUsable);
    }
  };
  return { prisma: new PrismaClient({ adapter }), run, runTogether };
}
