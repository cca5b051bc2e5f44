import type pg from 'pg';

import { migrationStatus } from '../database/migrations.ts';
import { failed, ok, warning, type Patient, type Verdict } from './finding.ts';

/** A check that needs PostgreSQL to answer. */
export type PostgresCheck = (sql: pg.Client, patient: Patient) => Promise<Verdict>;

const OLDEST_VERSION = 15;

async function one<Row extends pg.QueryResultRow>(sql: pg.Client, text: string): Promise<Row> {
  const { rows } = await sql.query<Row>(text);
  return rows[0] as Row;
}

/** The settings as they hold for our own sessions, which a role or database may have changed. */
async function settings<Name extends string>(
  sql: pg.Client,
  ...names: Name[]
): Promise<Record<Name, string>> {
  const { rows } = await sql.query<{ name: Name; setting: string }>(
    'SELECT name, setting FROM pg_settings WHERE name = ANY ($1)',
    [names],
  );
  return Object.fromEntries(rows.map(({ name, setting }) => [name, setting])) as Record<
    Name,
    string
  >;
}

export const checkVersion: PostgresCheck = async (sql) => {
  const { server_version_num: number, server_version: version } = await settings(
    sql,
    'server_version_num',
    'server_version',
  );
  if (Number(number) >= OLDEST_VERSION * 10_000) return ok(version);
  return failed(
    `${version} is older than ${OLDEST_VERSION}`,
    `Upgrade PostgreSQL to ${OLDEST_VERSION} or later.`,
  );
};

export const checkEncoding: PostgresCheck = async (sql) => {
  const { encoding } = await one<{ encoding: string }>(
    sql,
    'SELECT pg_encoding_to_char(encoding) AS encoding FROM pg_database WHERE datname = current_database()',
  );
  if (encoding === 'UTF8') return ok(encoding);
  return failed(
    `${encoding}: events may hold any character`,
    'Make the database anew with ENCODING UTF8, and move the data with pg_dump.',
  );
};

export const checkWritable: PostgresCheck = async (sql) => {
  const { standby, readOnly } = await one<{ standby: boolean; readOnly: boolean }>(
    sql,
    `SELECT pg_is_in_recovery() AS standby, current_setting('default_transaction_read_only')::bool AS "readOnly"`,
  );
  if (standby) return failed('the server is a standby', 'Point DATABASE_URL at the primary.');
  if (!readOnly) return ok('yes');
  return failed(
    'transactions are read-only by default',
    'ALTER ROLE or ALTER DATABASE … SET default_transaction_read_only = off.',
  );
};

export const checkMigrations: PostgresCheck = async (_, { config, databaseUrl }) => {
  const { applied, pending, failed: broken, baselineNeeded } = await migrationStatus(databaseUrl);
  if (broken.length > 0) {
    return failed(
      `${broken.join(', ')} failed half way`,
      'npx annals migrate says how to resolve it; see docs/migrating.md.',
    );
  }
  if (pending.length === 0) return ok(`${applied.length} applied, none pending`);
  if (applied.length === 0 && !baselineNeeded) {
    return warning('the database is empty', 'npx annals migrate (or the first worker) fills it.');
  }
  if (config.DATABASE_URL === undefined && !baselineNeeded) {
    return warning(`${pending.length} pending`, 'The next command that writes applies them.');
  }
  return failed(
    `${pending.length} pending, the first is ${pending[0]}`,
    `npx annals migrate${baselineNeeded ? ' --baseline (see docs/migrating.md first)' : ''}; workers refuse to start until then.`,
  );
};

export const checkDurability: PostgresCheck = async (sql) => {
  const found = await settings(sql, 'fsync', 'full_page_writes', 'synchronous_commit');
  const text = Object.entries(found)
    .map(([name, value]) => `${name}=${value}`)
    .join(', ');
  if (found.fsync === 'off' || found.full_page_writes === 'off') {
    return failed(
      `${text}: a crash of the machine may destroy the database`,
      'ALTER SYSTEM SET fsync = on; ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();',
    );
  }
  if (found.synchronous_commit === 'off') {
    return failed(
      `${text}: a crash takes back rows whose jobs were acknowledged already`,
      'ALTER ROLE or ALTER DATABASE … SET synchronous_commit = on (or local, for standbys that are slow).',
    );
  }
  return ok(text);
};

/**
 * Connections besides the pool that a worker opens at most: 5 for backfills, 3 for schedules, 1 for
 * its reports, and on PostgreSQL queues 5 for each of 8 workers, 2 for each of 8 queues, and 2 for each
 * of 4 while old dead letters are looked for.
 */
const EXTRA_CONNECTIONS = { redis: 9, postgres: 73 };

export const checkConnections: PostgresCheck = async (sql, { config, queue }) => {
  const found = await settings(
    sql,
    'max_connections',
    'superuser_reserved_connections',
    'reserved_connections', // since 16
  );
  const { used } = await one<{ used: number }>(
    sql,
    'SELECT sum(numbackends)::int AS used FROM pg_stat_database',
  );
  const max = Number(found.max_connections);
  const reserved =
    Number(found.superuser_reserved_connections) + Number(found.reserved_connections ?? 0);
  const free = max - reserved - used;
  const needed = config.ANNALS_DATABASE_POOL_SIZE + EXTRA_CONNECTIONS[queue.kind];
  const text = `${free} of ${max} free; a worker opens ${needed} at most`;
  if (free >= needed) return ok(text);
  return warning(
    text,
    'Raise max_connections, run fewer workers, lower ANNALS_DATABASE_POOL_SIZE, or put PgBouncer (session mode) in between.',
  );
};

/** Milliseconds that the longest statement of a batch or chunk may need on a busy server. */
const STATEMENT_MS = 30_000;

export const checkTimeouts: PostgresCheck = async (sql) => {
  const found = await settings(
    sql,
    'statement_timeout',
    'lock_timeout',
    'idle_in_transaction_session_timeout',
    'transaction_timeout', // since 17
  );
  const short = Object.entries(found).filter(
    ([, value]) => Number(value) > 0 && Number(value) < STATEMENT_MS,
  );
  if (short.length === 0) return ok(`none below ${STATEMENT_MS / 1000} s`);
  return warning(
    `${short.map(([name, value]) => `${name}=${value} ms`).join(', ')}: large batches may be cut off, and repeated`,
    `ALTER ROLE … SET ${short[0]?.[0]} = 0 for the role of Annals, or lower ANNALS_BATCH_MAX_ROWS.`,
  );
};

export const checkAutovacuum: PostgresCheck = async (sql) => {
  const found = await settings(sql, 'autovacuum', 'track_counts');
  if (found.autovacuum === 'on' && found.track_counts === 'on') return ok('on');
  return warning(
    'off: counters that move make tables grow without end',
    'ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf();',
  );
};

export const checkMonitoring: PostgresCheck = async (sql) => {
  const { role, sees } = await one<{ role: string; sees: boolean }>(
    sql,
    `SELECT quote_ident(current_user) AS "role", pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS "sees"`,
  );
  if (sees) return ok('sees what every session does');
  return warning(
    'does not see what sessions of other roles do: a backfill is held while a replica, an autovacuum of its table or an event worker of another role is there',
    `GRANT pg_monitor TO ${role};`,
  );
};
