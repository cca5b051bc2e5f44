import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import type pg from 'pg';

import { BaselineNeededError, MigrationError, UnavailableError } from '../errors.ts';
import { Connection } from './connection.ts';
import { runPrisma } from './prismaCli.ts';

const FOLDER = new URL('../../prisma/migrations/', import.meta.url);

/** The migration that makes the plain tables, which an existing database has already. */
export const LEGACY_MIGRATION = '20240101000000_legacy_tables';

/** Names of migrations, in the order in which they are applied. */
export interface MigrationStatus {
  applied: string[];
  /** Not applied, or being applied by somebody just now. */
  pending: string[];
  /** Begun and not ended; Prisma applies no other until they are resolved. */
  failed: string[];
  /** The plain tables are there, but not as the work of the first migration. */
  baselineNeeded: boolean;
}

export interface ApplyOptions {
  /** Takes plain tables that were made by other means for those of the first migration. */
  baseline?: boolean;
  /**
   * Resolves what an earlier call left half done, rather than saying how. For a database that
   * nobody else looks after, such as the embedded one.
   */
  heal?: boolean;
  /** Told each line for people, as it comes. */
  onOutput?: (line: string) => void;
  /** Stops waiting for another process, and stops when what has begun is done. */
  signal?: AbortSignal;
}

/**
 * Compares the package's migrations with what the database records, in two short queries.
 *
 * @throws {UnavailableError} when the server cannot be reached
 * @throws {MigrationError} when the database does not exist
 *
 * @example if ((await migrationStatus(url)).pending.length > 0) await applyMigrations(url);
 */
export async function migrationStatus(databaseUrl: string): Promise<MigrationStatus> {
  const client = await connect(databaseUrl);
  try {
    return await readStatus(client);
  } finally {
    await client.end();
  }
}

/**
 * Applies what is pending through `prisma migrate deploy`, and returns the names. Of several
 * processes that call it at once, one applies and the others wait for it.
 *
 * @throws {BaselineNeededError} when plain tables are there and `baseline` is not set
 * @throws {UnavailableError} when the server is away, or a table stayed locked by others; nothing
 *   is left half done, and the same call may succeed later
 * @throws {MigrationError} when a migration failed, now or before; the message says how to resolve it
 *
 * @example await applyMigrations(config.DATABASE_URL, { onOutput: console.log });
 */
export async function applyMigrations(
  databaseUrl: string,
  { baseline = false, heal = false, onOutput = () => {}, signal }: ApplyOptions = {},
): Promise<string[]> {
  const prisma = async (...args: string[]) => {
    signal?.throwIfAborted();
    const run = await runPrisma(['migrate', ...args], databaseUrl, onOutput);
    if (!run.succeeded) throw await explain(run.output);
    signal?.throwIfAborted();
  };
  const explain = async (output: string): Promise<Error> => {
    const name = /^Migration name: (.+)$/m.exec(output)?.[1];
    const reason = /^(?:Error: )?(P\d{4})/m.exec(output)?.[1];
    if (name && output.includes(`Database error code: ${LOCK_NOT_AVAILABLE}`) && !indexOf(name)) {
      // Rolled back as a whole by the server: only the record still says that it began.
      await prisma('resolve', '--rolled-back', name);
      return new UnavailableError(
        `Migration ${name} did not get its lock in time: another transaction holds the table. ` +
          'Nothing was changed. Run it again when that transaction has ended.',
      );
    }
    if (name) return new MigrationError(failure(name, output), { id: name, cause: output });
    const message = output.slice(Math.max(0, output.indexOf('Error:'))).trim();
    return reason && CONNECTION_FAULTS.has(reason)
      ? new UnavailableError(message)
      : new MigrationError(message);
  };

  const client = await connect(databaseUrl);
  try {
    if (isUpToDate(await readStatus(client))) return [];
    await lock(client, onOutput, signal);
    const status = await readStatus(client);
    if (isUpToDate(status)) return [];
    const [failed] = status.failed;
    if (failed && !heal) throw new MigrationError(failure(failed));
    for (const name of status.failed) {
      const index = indexOf(name);
      if (index) await client.query(`DROP INDEX CONCURRENTLY IF EXISTS "${index}"`);
      await prisma('resolve', '--rolled-back', name);
    }
    if (status.baselineNeeded) {
      if (!baseline) throw new BaselineNeededError(BASELINE_HINT);
      await prisma('resolve', '--applied', LEGACY_MIGRATION);
    }
    await prisma('deploy').catch(async (error: unknown) => {
      // One transaction, which was committed just before whoever had begun it could note that.
      const { id = '', cause } = error as MigrationError;
      if (!status.failed.includes(id) || !EXISTS_ALREADY.test(String(cause))) throw error;
      await prisma('resolve', '--applied', id);
      await prisma('deploy');
    });
    const taken = status.baselineNeeded ? [LEGACY_MIGRATION] : [];
    return [...status.failed, ...status.pending].filter((name) => !taken.includes(name)).toSorted();
  } finally {
    await client.end(); // and with it the lock
  }
}

const isUpToDate = ({ pending, failed }: MigrationStatus) => pending.length + failed.length === 0;

const LOCK_NOT_AVAILABLE = '55P03';

/** PostgreSQL's codes for a column, a table or another object that is there. */
const EXISTS_ALREADY = /Database error code: (42701|42P07|42710)/;

/** Prisma's codes for a server that is away, slow, or migrated by a command line just now. */
const CONNECTION_FAULTS = new Set(['P1001', 'P1002', 'P1008', 'P1017']);

const BASELINE_HINT = `The database has the plain tables, but no record of the migration that makes them (${LEGACY_MIGRATION}).
If they are as docs/migrating.md describes, this records it, and applies the rest:
  npx annals migrate --baseline`;

/** What failed, and what to do about it. */
function failure(name: string, output?: string): string {
  const reason = output && /^Database error:\n([^]+)$/m.exec(output)?.[1]?.trim();
  const index = indexOf(name);
  return [
    `Migration ${name} failed${reason ? `: ${reason}` : ' and is not resolved'}. No other is applied until it is:`,
    index
      ? `  echo 'DROP INDEX CONCURRENTLY IF EXISTS "${index}"' | npx prisma db execute --stdin`
      : '  (it is one transaction, so nothing of it took effect, unless the connection broke at its very end)',
    `  npx prisma migrate resolve --rolled-back ${name}`,
    'Then migrate again. See docs/migrating.md.',
  ].join('\n');
}

/** The index that a migration builds concurrently, if it is one of those. */
function indexOf(name: string): string | undefined {
  const sql = readFileSync(new URL(`${name}/migration.sql`, FOLDER), 'utf8');
  return /^CREATE (?:UNIQUE )?INDEX CONCURRENTLY "(\w+)"/m.exec(sql)?.[1];
}

/** Prisma's migrations hold this advisory lock; while they do, what has no end is under way. */
const PRISMA_LOCK = 72707369;

async function readStatus(client: pg.Client): Promise<MigrationStatus> {
  const { rows } = await client.query<{ recorded: boolean; plain: boolean; running: boolean }>(
    `SELECT to_regclass('_prisma_migrations') IS NOT NULL AS recorded,
            coalesce(to_regclass('"AI_Agent"'), to_regclass('"AgentSession"'),
                     to_regclass('"ModuleState"'), to_regclass('"InteractionMemory"')) IS NOT NULL AS plain,
            EXISTS (SELECT FROM pg_locks JOIN pg_database ON database = pg_database.oid
                     WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = ${PRISMA_LOCK}
                       AND datname = current_database()) AS running`,
  );
  const [{ recorded, plain, running } = { recorded: false, plain: false, running: false }] = rows;
  const begun = recorded ? await readRecord(client) : new Map<string, boolean>();
  const names = migrationNames();
  const applied = names.filter((name) => begun.get(name));
  const failed = running ? [] : names.filter((name) => begun.get(name) === false);
  return {
    applied,
    pending: names.filter((name) => !applied.includes(name) && !failed.includes(name)),
    failed,
    baselineNeeded: plain && !begun.has(LEGACY_MIGRATION),
  };
}

/** Whether each migration that was begun has ended well. */
async function readRecord(client: pg.Client): Promise<Map<string, boolean>> {
  const { rows } = await client.query<{ name: string; finished: boolean }>(
    `SELECT migration_name AS name, bool_and(finished_at IS NOT NULL) AS finished
       FROM _prisma_migrations WHERE rolled_back_at IS NULL GROUP BY migration_name`,
  );
  return new Map(rows.map(({ name, finished }) => [name, finished]));
}

function migrationNames(): string[] {
  return readdirSync(FOLDER, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .toSorted();
}

/**
 * Takes the lock under which this package migrates, apart from Prisma's own, which gives up after
 * ten seconds while an index may take hours. Asks again and again rather than waiting inside a
 * statement, whose snapshot CREATE INDEX CONCURRENTLY would wait for in turn: a deadlock.
 */
async function lock(
  client: pg.Client,
  onOutput: (line: string) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const attempt = "SELECT pg_try_advisory_lock(hashtext('annals_migrations')) AS locked";
  await client.query('SET idle_session_timeout = 0'); // the session idles while Prisma works
  for (let waited = false; ; waited = true) {
    if ((await client.query<{ locked: boolean }>(attempt)).rows[0]?.locked) return;
    if (!waited) onOutput('Another process is migrating this database; waiting for it.');
    await sleep(250, undefined, signal && { signal });
  }
}

async function connect(databaseUrl: string): Promise<pg.Client> {
  const client = new Connection({
    connectionString: databaseUrl,
    connectionTimeoutMillis: 5000,
    application_name: 'annals migrations',
    keepAlive: true,
  });
  try {
    await client.connect();
    return client;
  } catch (cause) {
    const { code, message } = cause as pg.DatabaseError;
    if (code === '3D000') {
      throw new MigrationError(
        `Database "${client.database}" does not exist on ${client.host}:${client.port}. Create it first, such as with \`createdb\`.`,
        { cause },
      );
    }
    throw new UnavailableError(
      `Cannot connect to PostgreSQL on ${client.host}:${client.port}: ${message || code}`,
      { cause },
    );
  }
}
