import { afterAll, beforeAll, expect, test } from 'vitest';
import { Redis } from 'ioredis';
import pg from 'pg';

import {
  createTestDatabase,
  describeRedis,
  redisUrl,
  type TestDatabase,
  testPrefix,
} from './support/database.ts';
import { startPostgres, startRedis } from './support/servers.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.drop());

test('a test database answers through SQL and Prisma', async () => {
  expect(await db.sql('SELECT $1::int + 1 AS two', [1])).toEqual([{ two: 2 }]);
  expect(await db.prisma.$queryRaw`SELECT current_setting('timezone') AS zone`).toEqual([
    { zone: 'UTC' },
  ]);
});

test('a prefix suits both back ends', () => {
  expect(testPrefix()).toMatch(/^[a-z][a-z0-9_]{0,39}$/);
  expect(testPrefix()).not.toBe(testPrefix());
});

test('a private PostgreSQL keeps its data and port when killed, and hangs while paused', async () => {
  const server = await startPostgres();
  const query = async (sql: string) => {
    const client = new pg.Client({
      connectionString: server.url,
      query_timeout: 2000,
      connectionTimeoutMillis: 2000,
    });
    client.on('error', () => {});
    await client.connect();
    try {
      return await client.query(sql);
    } finally {
      await client.end();
    }
  };
  try {
    await query('CREATE TABLE kept AS SELECT 7 AS n');
    await server.kill();
    await expect(query('SELECT 1')).rejects.toThrow(/ECONNREFUSED/);
    await server.restart();
    expect((await query('SELECT n FROM kept')).rows).toEqual([{ n: 7 }]);
    server.pause();
    await expect(query('SELECT 1')).rejects.toThrow(/timeout/);
    server.resume();
    await query('SELECT 1');
  } finally {
    await server.stop();
  }
});

describeRedis('Redis', () => {
  test('the shared one answers', async () => {
    const redis = new Redis(redisUrl());
    expect(await redis.ping()).toBe('PONG');
    redis.disconnect();
  });

  test('a private one keeps its data and port when stopped', async () => {
    const server = await startRedis();
    const redis = new Redis(server.url);
    redis.on('error', () => {});
    try {
      await redis.set('kept', '7');
      await server.restart();
      expect(await redis.get('kept')).toBe('7');
    } finally {
      redis.disconnect();
      await server.stop();
    }
  });
});
