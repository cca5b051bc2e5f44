import { randomBytes } from 'node:crypto';

import pg from 'pg';
import { describe, inject } from 'vitest';

import { createPrismaClient, type PrismaClient } from '../../src/database/client.ts';
import { createPool } from '../../src/database/connection.ts';

/** A database of a test file's own, with the whole schema. */
export interface TestDatabase {
  readonly url: string;
  readonly prisma: PrismaClient;
  /** Rows of a statement, by `$1`-style parameters. */
  sql<Row extends pg.QueryResultRow = any>(text: string, params?: unknown[]): Promise<Row[]>;
  /** Closes all and drops the database, unless `ANNALS_TEST_KEEP=1`. */
  drop(): Promise<void>;
}

/** @example const db = await createTestDatabase(); afterAll(() => db.drop()); */
export async function createTestDatabase(): Promise<TestDatabase> {
  const name = `test_${process.pid}_${randomBytes(4).toString('hex')}`;
  await admin(`CREATE DATABASE ${name} TEMPLATE annals_template`);
  const url = Object.assign(new URL(inject('postgresUrl')), { pathname: name }).href;
  const prisma = createPrismaClient(url);
  const pool = createPool({ connectionString: url, max: 4 });
  return {
    url,
    prisma,
    sql: async (text, params) => (await pool.query(text, params)).rows,
    drop: async () => {
      await Promise.all([prisma.$disconnect(), pool.end()]);
      if (process.env['ANNALS_TEST_KEEP'] === '1') console.warn(`kept: ${url}`);
      else await admin(`DROP DATABASE ${name} WITH (FORCE)`);
    },
  };
}

/** The server copies a template only while nobody else does: one attempt after the other. */
async function admin(sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: inject('postgresUrl') });
  await client.connect();
  try {
    await client.query("SELECT pg_advisory_lock(hashtext('annals_template'))");
    await client.query(sql);
  } finally {
    await client.end();
  }
}

/** The Redis that all test files share; keep to `testPrefix()` within it. */
export function redisUrl(): string {
  const url = inject('redisUrl');
  if (!url) throw new Error('there is no Redis in this run: use describeRedis');
  return url;
}

/** `describe`, skipped where there is no `redis-server`. */
export const describeRedis: typeof describe.skip = describe.skipIf(inject('redisUrl') === null);

/** A queue prefix that no other test has. */
export function testPrefix(): string {
  return `t${process.pid}_${randomBytes(6).toString('hex')}`;
}
