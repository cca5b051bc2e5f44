// @ts-check
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import pg from 'pg';

import { columnType, parsers } from './columns.js';
import { connect, sibling } from './database.js';
import { statementError, UserFacingError } from './errors.js';

/** @typedef {import('@prisma/driver-adapter-utils').SqlQuery} SqlQuery */

const ADVISORY_LOCK = 'SELECT pg_advisory_lock(72707369)';
const ADVISORY_LOCK_TIMEOUT_MS = 10_000;

/**
 * Makes the connections that the engine asks for. `fault` holds what the engine's own error would
 * not tell: the script that PostgreSQL refused, or why there is no connection.
 */
export class AdapterFactory {
  provider = /** @type {const} */ ('postgres');
  adapterName = '@prisma/adapter-pg';
  #target;
  #shadowTarget;
  /** @type {Fault | undefined} */
  fault;

  /**
   * @param {import('./database.js').Target} target
   * @param {import('./database.js').Target} [shadowTarget] - a database to wipe and use as shadow
   */
  constructor(target, shadowTarget) {
    this.#target = target;
    this.#shadowTarget = shadowTarget;
  }

  /** @typedef {{ error: any, script?: string }} Fault */

  async connect() {
    return this.#open(this.#target);
  }

  /** The database in which migrations are replayed to see what they make. */
  async connectToShadowDb() {
    if (this.#shadowTarget) {
      const adapter = await this.#open(this.#shadowTarget);
      await adapter.executeScript('DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public');
      return adapter;
    }
    const database = `prisma_migrate_shadow_db_${randomUUID()}`;
    const name = pg.escapeIdentifier(database);
    const server = await connect(this.#target);
    try {
      await server.query(`CREATE DATABASE ${name}`);
    } catch (error) {
      await server.end();
      this.fault = { error: shadowError(error) };
      throw this.fault.error;
    }
    return this.#open(sibling(this.#target, database), async () => {
      await server.query(`DROP DATABASE ${name} WITH (FORCE)`);
      await server.end();
    });
  }

  /** @param {import('./database.js').Target} target @param {() => Promise<void>} [afterClose] */
  async #open(target, afterClose) {
    try {
      return new Adapter(
        await connect(target),
        target.schema,
        (fault) => (this.fault = fault),
        afterClose,
      );
    } catch (error) {
      this.fault = { error };
      throw error;
    }
  }
}

/**
 * One connection. Everything goes over it in turn, so that the advisory lock, which belongs to a
 * session, is held by the session that migrates.
 */
class Adapter {
  provider = /** @type {const} */ ('postgres');
  adapterName = '@prisma/adapter-pg';
  #client;
  #schema;
  #report;
  #afterClose;

  /**
   * @param {pg.Client} client
   * @param {string} schema
   * @param {(fault: Fault) => void} report
   * @param {() => Promise<void>} [afterClose]
   */
  constructor(client, schema, report, afterClose) {
    this.#client = client;
    this.#schema = schema;
    this.#report = report;
    this.#afterClose = afterClose;
  }

  /** @param {SqlQuery} query */
  async queryRaw(query) {
    const { fields, rows } = await this.#query(query);
    return {
      columnNames: fields.map((field) => field.name),
      columnTypes: fields.map((field) => columnType(field.dataTypeID)),
      rows,
    };
  }

  /** @param {SqlQuery} query */
  async executeRaw(query) {
    if (query.sql === ADVISORY_LOCK) return this.#lock();
    return (await this.#query(query)).rowCount ?? 0;
  }

  /**
   * Runs a migration as one simple query, as Prisma's own engine does: several statements are one
   * transaction, and a single one (CREATE INDEX CONCURRENTLY) runs outside of any.
   *
   * @param {string} script
   */
  async executeScript(script) {
    try {
      await this.#client.query(script);
    } catch (error) {
      this.#report({ error, script });
      throw statementError(error);
    }
  }

  async startTransaction() {
    await this.executeScript('BEGIN');
    return {
      provider: this.provider,
      adapterName: this.adapterName,
      // The engine itself sends COMMIT and ROLLBACK.
      options: { usePhantomQuery: false },
      queryRaw: this.queryRaw.bind(this),
      executeRaw: this.executeRaw.bind(this),
      commit: async () => {},
      rollback: async () => {},
    };
  }

  getConnectionInfo() {
    return { schemaName: this.#schema, supportsRelationJoins: true };
  }

  async dispose() {
    await this.#client.end();
    await this.#afterClose?.();
  }

  /**
   * Waits for the advisory lock by asking again and again. A session that waits inside a statement
   * holds a snapshot, and CREATE INDEX CONCURRENTLY in the session that has the lock waits for all
   * snapshots: PostgreSQL would have to break the deadlock, at the cost of an invalid index.
   */
  async #lock() {
    if (process.env['PRISMA_SCHEMA_DISABLE_ADVISORY_LOCK']) return 0;
    const deadline = Date.now() + ADVISORY_LOCK_TIMEOUT_MS;
    const attempt = `${ADVISORY_LOCK.replace('pg_advisory_lock', 'pg_try_advisory_lock')} AS locked`;
    while (!(await this.#client.query(attempt)).rows[0].locked) {
      if (Date.now() > deadline) {
        const error = new UserFacingError(
          'P1002',
          `The database server was reached but timed out.\n\nPlease try again.\n\nContext: Timed out trying to acquire a postgres advisory lock (${ADVISORY_LOCK}). Timeout: ${ADVISORY_LOCK_TIMEOUT_MS}ms. See https://pris.ly/d/migrate-advisory-locking for details.`,
        );
        this.#report({ error });
        throw error;
      }
      await sleep(200);
    }
    return 1;
  }

  /** @param {SqlQuery} query */
  async #query({ sql, args }) {
    try {
      return await this.#client.query({
        text: sql,
        values: args,
        rowMode: 'array',
        types: parsers,
      });
    } catch (error) {
      throw statementError(error);
    }
  }
}

/** @param {any} error */
function shadowError(error) {
  if (error.code !== '42501') return error;
  return new UserFacingError(
    'P3014',
    `Prisma Migrate could not create the shadow database. Please make sure the database user has permission to create databases. Read more about the shadow database (and workarounds) at https://pris.ly/d/migrate-shadow\n\nOriginal error: ${error.message}`,
  );
}
