import { PrismaPg } from '@prisma/adapter-pg';

import { PrismaClient } from '../generated/prisma/client.ts';
import { createPool } from './connection.ts';

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

/**
 * Makes a Prisma client on a pool of its own; nothing connects until the first query. Close it
 * with `$disconnect()`.
 *
 * @param databaseUrl - `postgresql://…`
 *
 * @example const prisma = createPrismaClient(config.DATABASE_URL);
 */
export function createPrismaClient(
  databaseUrl: string,
  options: DatabaseOptions = {},
): PrismaClient {
  const adapter = new PrismaPg(
    createPool({
      connectionString: databaseUrl,
      max: options.poolSize ?? 10,
      ...(options.connectTimeoutMs && { connectionTimeoutMillis: options.connectTimeoutMs }),
      application_name: options.applicationName ?? 'annals',
      allowExitOnIdle: options.exitWhenIdle ?? false,
    }),
    { disposeExternalPool: true },
  );
  return new PrismaClient({ adapter });
}
