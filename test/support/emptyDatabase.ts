import { randomBytes } from 'node:crypto';

import pg from 'pg';
import { inject } from 'vitest';

/** A database without any table, for what makes tables. */
export interface EmptyDatabase {
  readonly url: string;
  /** A connection of its own, for transactions that stay open; closed by `drop()`. */
  connect(): Promise<pg.Client>;
  sql<Row extends pg.QueryResultRow = any>(text: string, params?: unknown[]): Promise<Row[]>;
  drop(): Promise<void>;
}

/** @example const db = await createEmptyDatabase(); afterAll(() => db.drop()); */
export async function createEmptyDatabase(): Promise<EmptyDatabase> {
  const name = `empty_${process.pid}_${randomBytes(4).toString('hex')}`;
  await onServer(`CREATE DATABASE ${name}`);
  const url = Object.assign(new URL(inject('postgresUrl')), { pathname: name }).href;
  const clients: pg.Client[] = [];
  const connect = async () => {
    const client = new pg.Client({ connectionString: url });
    client.on('error', () => {});
    await client.connect();
    clients.push(client);
    return client;
  };
  const own = await connect();
  return {
    url,
    connect,
    sql: async (text, params) => (await own.query(text, params)).rows,
    drop: async () => {
      await Promise.all(clients.map((client) => client.end()));
      await onServer(`DROP DATABASE ${name} WITH (FORCE)`);
    },
  };
}

/** Runs a statement on the run's server, outside of any test's database. */
export async function onServer(sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: inject('postgresUrl') });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}
