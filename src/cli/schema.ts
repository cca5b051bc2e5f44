import { setTimeout as sleep } from 'node:timers/promises';

import { Prisma } from '../database/client.ts';
import { Connection } from '../database/connection.ts';
import { applyMigrations, migrationStatus } from '../database/migrations.ts';
import { ConflictError } from '../errors.ts';
import type { Environment } from './environment.ts';

/** Milliseconds between two looks at a migration that another process is at. */
const LOOK_EVERY_MS = 250;

/**
 * Makes sure that the database has the schema. An embedded database, and one that holds nothing of
 * ours, gets it at once. One that has rows and traffic is its owner's to migrate.
 *
 * @throws {ConflictError} when migrations of a database in use are pending
 */
export async function ensureSchema(environment: Environment): Promise<void> {
  const { config, databaseUrl, say, stopping } = environment;
  for (;;) {
    // In this order: a migration that ends in between is not taken for one that is pending.
    const { isEmpty, isBeingMigrated } = await look(databaseUrl);
    const { pending, failed, baselineNeeded } = await migrationStatus(databaseUrl);
    const open = pending.length + failed.length;
    if (open === 0) return;
    if (isEmpty || config.DATABASE_URL === undefined) {
      const applied = await applyMigrations(databaseUrl, {
        heal: config.DATABASE_URL === undefined,
        onOutput: (line) => environment.log.debug(line),
        signal: stopping,
      });
      if (applied.length > 0) say(`Brought the database up to date: ${applied.length} migrations`);
      return;
    }
    // Of several workers that start on an empty database, the others wait here for the first.
    if (!isBeingMigrated) {
      const some = open === 1 ? '1 migration is' : `${open} migrations are`;
      const how = baselineNeeded ? ' --baseline (docs/migrating.md says what that takes)' : '';
      throw new ConflictError(`${some} pending; run: npx annals migrate${how}`);
    }
    await sleep(LOOK_EVERY_MS, undefined, { signal: stopping });
  }
}

/** The lock is that of `applyMigrations`. */
const LOOK = `
SELECT NOT EXISTS (SELECT FROM unnest($1::text[]) AS x (name)
                   WHERE to_regclass(quote_ident(x.name)) IS NOT NULL) AS "isEmpty",
  EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
          WHERE l.locktype = 'advisory' AND l.granted AND d.datname = current_database()
            AND (l.classid::bigint << 32 | l.objid::bigint) = hashtext('annals_migrations')::bigint
  ) AS "isBeingMigrated"`;

async function look(databaseUrl: string): Promise<{ isEmpty: boolean; isBeingMigrated: boolean }> {
  const client = new Connection({ connectionString: databaseUrl, connectionTimeoutMillis: 5000 });
  await client.connect();
  try {
    const ours = [...Object.values(Prisma.ModelName), '_prisma_migrations'];
    const { rows } = await client.query<{ isEmpty: boolean; isBeingMigrated: boolean }>(LOOK, [
      ours,
    ]);
    return rows[0] ?? { isEmpty: false, isBeingMigrated: false };
  } finally {
    await client.end();
  }
}
