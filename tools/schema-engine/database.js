// @ts-check
import pg from 'pg';

import { connectionError, UserFacingError } from './errors.js';

/**
 * @typedef {object} Target Where to connect.
 * @property {URL} url
 * @property {string} schema - the PostgreSQL schema that stands for the database
 */

/**
 * @param {string | undefined} url - with Prisma's `schema` and `connect_timeout` (seconds), or not
 * @returns {Target}
 */
export function target(url) {
  if (!url) throw new UserFacingError('P1013', 'The connection URL is empty: set DATABASE_URL.');
  if (!URL.canParse(url))
    throw new UserFacingError(
      'P1013',
      'The provided database string is invalid. It must be a URL such as `postgresql://user:password@host:5432/database`; special characters in it must be percent-encoded.',
    );
  const parsed = new URL(url);
  if (!/^postgres(ql)?:$/.test(parsed.protocol)) {
    throw new UserFacingError(
      'P1013',
      `This schema engine knows PostgreSQL only, not \`${parsed.protocol}\`. For another database, set PRISMA_SCHEMA_ENGINE_BINARY to an engine of Prisma's own.`,
    );
  }
  return { url: parsed, schema: parsed.searchParams.get('schema') ?? 'public' };
}

/** The same server, another database. @param {Target} target @param {string} database @returns {Target} */
export function sibling({ url, schema }, database) {
  return { url: Object.assign(new URL(url), { pathname: encodeURIComponent(database) }), schema };
}

/**
 * Connects as the application's own driver does, so that a URL that works there works here.
 *
 * @param {Target} target
 */
export async function connect({ url, schema }) {
  const client = new pg.Client({
    connectionString: url.href,
    connectionTimeoutMillis: Number(url.searchParams.get('connect_timeout') ?? 5) * 1000,
    keepAlive: true,
    fallback_application_name: 'prisma-schema-engine',
  });
  client.on('error', () => {}); // the statement under way, or the next one, fails with it
  try {
    await client.connect();
  } catch (error) {
    throw connectionError(error, client);
  }
  await client.query("SELECT set_config('search_path', quote_ident($1), false)", [schema]);
  return client;
}

/** @param {Target} target */
export async function canConnect(target) {
  await (await connect(target)).end();
}

/** @param {Target} target */
export const createDatabase = (target) => administer('CREATE DATABASE', target);

/** @param {Target} target */
export const dropDatabase = (target) => administer('DROP DATABASE', target);

/** @param {string} command @param {Target} target */
async function administer(command, target) {
  const database = databaseName(target);
  const client = await connect({ ...sibling(target, 'postgres'), schema: 'public' });
  try {
    await client.query(`${command} ${pg.escapeIdentifier(database)}`);
  } catch (error) {
    const { code, message } = /** @type {pg.DatabaseError} */ (error);
    switch (code) {
      case '42P04':
        throw new UserFacingError('P1009', `Database \`${database}\` already exists`);
      case '3D000':
        throw new UserFacingError('P1003', `Database \`${database}\` does not exist`);
      case '42501':
        throw new UserFacingError(
          'P1010',
          `User was denied access on the database \`${database}\`: ${message}`,
        );
    }
    throw error;
  } finally {
    await client.end();
  }
}

/** @param {Target} target */
export const databaseName = ({ url }) => decodeURIComponent(url.pathname.slice(1));
