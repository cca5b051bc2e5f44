import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';

import { openPool } from '../../src/backfill/database.ts';
import { createThrottle, DEFAULT_LIMITS, type Throttle } from '../../src/backfill/throttle.ts';
import { openQueue, prepareQueues } from '../../src/queues/backend.ts';
import { describeBackends } from '../support/pipeline.ts';
import { startPostgres } from '../support/servers.ts';
import { createFixture, MEMORIES, seedPlain, SESSIONS, type Fixture } from './fixture.ts';

const LIMITS = {
  lagMs: 1000,
  lagSql: `SELECT "behind" FROM "Heartbeat"`,
  waitMs: 300,
  vacuumMs: 300,
  writeMs: 300,
  queuedJobs: 10,
};

describeBackends('a backfill', (locate) => {
  let db: Fixture;
  const clients: pg.Client[] = [];
  const connect = async (applicationName = 'somebody') => {
    const client = new pg.Client({ connectionString: db.url, application_name: applicationName });
    client.on('error', () => {});
    await client.connect();
    clients.push(client);
    return client;
  };

  beforeEach(async () => {
    db = await createFixture(locate);
    await seedPlain(db, 6000);
    await db.sql(`CREATE TABLE "Heartbeat" ("behind" int); INSERT INTO "Heartbeat" VALUES (0)`);
    await db.work();
    await db.start({ maxChunkRows: 20, restMs: 50, limits: LIMITS }, [SESSIONS]);
  });
  afterEach(async () => {
    await Promise.all(clients.splice(0).map((client) => client.end()));
    await db.drop();
  });

  /** Makes a signal real, sees that it holds the run, takes it away and sees that the run goes on. */
  async function holds(reason: RegExp, make: () => Promise<() => Promise<unknown>>): Promise<void> {
    const release = await make();
    const giveUpAt = Date.now() + 5000;
    while (!reason.test((await db.status(SESSIONS)).reason ?? '')) {
      if (Date.now() > giveUpAt)
        throw new Error(`not held, but: ${(await db.status(SESSIONS)).reason}`);
      await sleep(50);
    }
    await sleep(300); // the other lane's chunk
    const { passed } = await db.status(SESSIONS);
    await sleep(700);
    expect((await db.status(SESSIONS)).passed).toBe(passed);
    await release();
    const releasedAt = Date.now();
    while ((await db.status(SESSIONS)).passed === passed) await sleep(50);
    expect(Date.now() - releasedAt).toBeLessThan(5000);
    expect((await db.status(SESSIONS)).reason).toBeNull();
  }

  it('is held by each of the five signals, and says by which', { timeout: 60_000 }, async () => {
    await holds(/held: a replica is behind by 1500 ms, over 1000/, async () => {
      await db.sql(`UPDATE "Heartbeat" SET "behind" = 1500`);
      return () => db.sql(`UPDATE "Heartbeat" SET "behind" = 0`);
    });
    await holds(
      /held: replica lag cannot be read: relation "Heartbeat" does not exist/,
      async () => {
        await db.sql(`ALTER TABLE "Heartbeat" RENAME TO "Gone"`);
        return () => db.sql(`ALTER TABLE "Gone" RENAME TO "Heartbeat"`);
      },
    );
    await holds(/held: a session has waited for a lock for \d+ ms, over 300/, async () => {
      const [holder, waiter] = [await connect(), await connect()];
      await holder.query(`BEGIN; LOCK TABLE "User"`);
      const waiting = waiter.query(`SELECT FROM "User"`);
      return () => Promise.all([holder.query('ROLLBACK'), waiting]);
    });
    await holds(/held: a write of the event workers has taken \d+ ms, over 300/, async () => {
      const worker = await connect('annals worker');
      const writing = worker.query('SELECT pg_sleep(60)').catch(() => {});
      return async () => {
        await db.sql(
          `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()`,
        );
        await writing;
      };
    });
    await holds(/held: \d+ jobs wait in transition, over 10/, async () => {
      const queue = openQueue(db.location, 'transition');
      await queue.addBulk(
        Array.from({ length: 20 }, () => ({ name: 'job', data: { v: 1, events: [] } })),
      );
      return async () => {
        await queue.drain();
        await queue.close();
      };
    });
    await holds(/held: the table has been under vacuum for \d+ ms, over 300/, async () => {
      const client = await connect();
      await client.query(`SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1`);
      const vacuuming = client.query(`VACUUM "AgentSession"`).catch(() => {});
      return async () => {
        await db.sql(
          `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'VACUUM%'`,
        );
        await vacuuming;
      };
    });
  });

  it('a settling is held as a chunk is', async () => {
    const holder = await connect();
    await holder.query(`BEGIN; SELECT FROM "InteractionMemory" LIMIT 1 FOR UPDATE`);
    await db.start({ limits: LIMITS }, [MEMORIES]);
    await expect.poll(async () => (await db.status(MEMORIES)).phase).toBe('settle');
    await db.sql(`UPDATE "Heartbeat" SET "behind" = 1500`);
    const reason = async () => (await db.status(MEMORIES)).reason;
    await expect.poll(reason).toMatch(/held: a replica is behind by 1500 ms/);
    await holder.query('ROLLBACK');
    await sleep(1500);
    expect(await db.status(MEMORIES)).toMatchObject({ status: 'running', phase: 'settle' });
    await db.sql(`UPDATE "Heartbeat" SET "behind" = 0`);
    expect(await db.finished([MEMORIES])).toMatchObject([{ status: 'completed' }]);
  });

  it('a lag query that hangs holds its run, is named, and leaves the others alone', async () => {
    await holds(/held: replica lag cannot be read: .* lock timeout/, async () => {
      const holder = await connect();
      await holder.query(`BEGIN; LOCK TABLE "Heartbeat"`);
      await db.start({}, [MEMORIES]);
      expect(await db.finished([MEMORIES])).toMatchObject([{ status: 'completed' }]);
      return () => holder.query('ROLLBACK');
    });
    await holds(/held: replica lag cannot be read: .* statement timeout/, async () => {
      await db.sql(
        `ALTER TABLE "Heartbeat" RENAME TO "Gone"; CREATE VIEW "Heartbeat" AS SELECT "behind" FROM "Gone", pg_sleep(60)`,
      );
      return () => db.sql(`DROP VIEW "Heartbeat"; ALTER TABLE "Gone" RENAME TO "Heartbeat"`);
    });
  });
});

describeBackends('a signal that cannot be read', (locate) => {
  let db: Fixture;
  let throttle: Throttle;
  let stranger: pg.Pool;
  const clients: pg.Client[] = [];

  /** As a role that may see the tables, and no more. */
  beforeEach(async () => {
    db = await createFixture(locate);
    await prepareQueues(db.location);
    await seedPlain(db, 6000);
    const role = `stranger_${new URL(db.url).pathname.slice(1)}`;
    await db.sql(`CREATE ROLE "${role}" LOGIN PASSWORD 'stranger'`);
    stranger = openPool(
      Object.assign(new URL(db.url), { username: role, password: 'stranger' }).href,
      2,
    );
    throttle = createThrottle(stranger, db.location);
  });
  afterEach(async () => {
    await throttle.close();
    await stranger.end();
    await Promise.all(clients.splice(0).map((client) => client.end()));
    await db.sql(`DROP ROLE "stranger_${new URL(db.url).pathname.slice(1)}"`);
    await db.drop();
  });

  const begin = async (applicationName: string, sql: string) => {
    const client = new pg.Client({ connectionString: db.url, application_name: applicationName });
    client.on('error', () => {});
    await client.connect();
    clients.push(client);
    const { rows } = await client.query('SELECT pg_backend_pid() AS pid');
    const work = client.query(sql).catch(() => {});
    return async () => {
      await db.sql(`SELECT pg_cancel_backend(${rows[0].pid})`);
      await work;
    };
  };
  const held = () => throttle.holds('AgentSession', DEFAULT_LIMITS);
  const seen = async (expected: string | undefined) => {
    await expect.poll(held, { timeout: 5000 }).toBe(expected);
  };

  it('holds: writes of event workers of another role', async () => {
    await seen(undefined);
    const end = await begin('annals worker', 'SELECT pg_sleep(60)');
    await seen(
      'held: the writes of the event workers cannot be read: no figure (is the role in pg_monitor?)',
    );
    await end();
    await clients.pop()!.end();
    await seen(undefined);
  });

  it('holds: a vacuum by another role, but of this table only', async () => {
    const vacuum = async (table: string) => {
      // As it connects: to cancel what made it slow might cancel the vacuum.
      const options = '-c vacuum_cost_delay=100 -c vacuum_cost_limit=1';
      const client = new pg.Client({ connectionString: db.url, options });
      client.on('error', () => {});
      await client.connect();
      clients.push(client);
      const work = client.query(`VACUUM "${table}"`).catch(() => {});
      // Of this table: the server has those of others as well.
      const running = `SELECT FROM pg_stat_progress_vacuum
        WHERE datname = current_database() AND relid = '"${table}"'::regclass`;
      await expect
        .poll(async () => (await db.sql(running)).length, { timeout: 10_000 })
        .toBeGreaterThan(0);
      return async () => {
        await db.sql(
          `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'VACUUM%'`,
        );
        await work;
      };
    };
    const endOther = await vacuum('ModuleState');
    await sleep(300); // longer than a reading serves
    expect(await held()).toBeUndefined();
    await endOther();
    const end = await vacuum('AgentSession');
    await seen(
      'held: the vacuum of the table cannot be read: no figure (is the role in pg_monitor?)',
    );
    await end();
    await seen(undefined);
  });

  it('holds: queues that are out of reach', async () => {
    const away = Object.assign(new URL(db.location.url), { port: '1' }).href;
    const blind = createThrottle(stranger, { ...db.location, url: away });
    expect(await blind.holds('AgentSession', DEFAULT_LIMITS)).toMatch(
      /^held: the depth of the queues cannot be read: \S/,
    );
    await Promise.race([blind.close().catch(() => {}), sleep(1000)]);
  });
});

it('an autovacuum of the table holds it', async () => {
  const server = await startPostgres({
    settings: {
      autovacuum_naptime: '1s',
      autovacuum_vacuum_cost_delay: '100ms',
      autovacuum_vacuum_cost_limit: '1',
    },
  });
  const pool = openPool(server.url, 2);
  const location = { kind: 'postgres', url: server.url, prefix: 'annals' } as const;
  try {
    await prepareQueues(location);
    await pool.query(`CREATE TABLE "AgentSession" ("id" int, "text" text);
      INSERT INTO "AgentSession" SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n;
      DELETE FROM "AgentSession" WHERE "id" % 2 = 0`);
    const throttle = createThrottle(pool, location);
    const held = () => throttle.holds('AgentSession', { ...DEFAULT_LIMITS, vacuumMs: 300 });
    await expect.poll(held).toMatch(/^held: the table has been under vacuum for \d+ ms, over 300$/);
    expect(await throttle.holds('User', DEFAULT_LIMITS)).toBeUndefined();
    await pool.query(`ALTER SYSTEM SET autovacuum = off`);
    await pool.query(`SELECT pg_reload_conf()`);
    await pool.query(
      `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'`,
    );
    await expect.poll(held).toBeUndefined();
    await throttle.close();
  } finally {
    await pool.end();
    await server.stop();
  }
});

it('a replica that catches up or went away holds it', async () => {
  const server = await startPostgres();
  const pool = openPool(server.url, 2);
  const location = { kind: 'postgres', url: server.url, prefix: 'annals' } as const;
  const replicas: pg.Client[] = [];
  /** A replica that takes what it is sent, unless its stream is paused, and never answers. */
  const replicate = async (options: string) => {
    const config = { connectionString: server.url, application_name: 'replica' };
    const replica = new pg.Client({ ...config, replication: 'true' } as pg.ClientConfig);
    replica.on('error', () => {});
    await replica.connect();
    replicas.push(replica);
    replica.query(`START_REPLICATION ${options}`).catch(() => {});
    return (replica as unknown as { connection: { stream: Socket } }).connection.stream;
  };
  try {
    await prepareQueues(location);
    const { rows } = await pool.query(`SELECT pg_current_wal_lsn() AS "lsn"`);
    await pool.query(`SELECT pg_create_physical_replication_slot('standby', true);
      CREATE TABLE "Much" AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 20000) n`);
    const throttle = createThrottle(pool, location);
    const held = () => throttle.holds('AgentSession', DEFAULT_LIMITS);
    const prefix = 'held: replica lag cannot be read:';
    await expect.poll(held).toBe(`${prefix} nobody reads the replication slot standby`);

    const stream = await replicate(`SLOT standby PHYSICAL ${rows[0].lsn}`);
    stream.pause();
    await expect.poll(held).toBe(`${prefix} the replica replica is at catchup`);
    stream.resume(); // a receiver of the log alone, that applies nothing, has no lag
    await expect.poll(held, { timeout: 5000 }).toBeUndefined();
    await replicas[0]!.end();
    await expect.poll(held).toBe(`${prefix} nobody reads the replication slot standby`);
    await pool.query(`SELECT pg_drop_replication_slot('standby')`);
    await expect.poll(held).toBeUndefined();
    await throttle.close();
  } finally {
    await Promise.all(replicas.map((replica) => replica.end()));
    await pool.end();
    await server.stop();
  }
});

it('a lane that has much to do shares it when another runs dry', async () => {
  const db = await createFixture();
  try {
    await seedPlain(db, 5000);
    await db.sql(`ANALYZE`);
    await db.work();
    await db.start({ maxChunkRows: 50 }, [SESSIONS]);
    // All blocks but one are the second lane's.
    await db.sql(
      `UPDATE "BackfillLane" SET "high" = 65536 WHERE "low" = 0; UPDATE "BackfillLane" SET "low" = 65536, "cursor" = 65536 WHERE "low" > 0`,
    );
    const [run] = await db.finished([SESSIONS]);
    expect(run).toMatchObject({ status: 'completed', changed: 5000 });
    const lanes = await db.sql(
      `SELECT "rowsPassed" AS n FROM "BackfillLane" WHERE "phase" = 'fill' ORDER BY "id"`,
    );
    expect(lanes.length).toBeGreaterThan(2);
    expect(Math.max(...lanes.map(({ n }) => n))).toBeLessThan(4500);
  } finally {
    await db.drop();
  }
});
