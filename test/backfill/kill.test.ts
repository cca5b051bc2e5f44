import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import { Redis } from 'ioredis';
import { expect, it } from 'vitest';

import { startWorker } from '../../bench/backfill/workerProcess.ts';
import { readStatus } from '../../src/backfill/status.ts';
import { TRANSFORMS } from '../../src/backfill/transforms/index.ts';
import { describeBackends } from '../support/pipeline.ts';
import { contents, createFixture, seedPlain, TIMINGS, type Fixture } from './fixture.ts';

const ROWS = 1000;
const KILLS = 5;

describeBackends(`a backfill whose worker is killed ${KILLS} times`, (locate) => {
  it(
    'ends by itself, with the tables of a run that nobody disturbed',
    { timeout: 90_000 },
    async () => {
      const [db, calm] = await Promise.all([createFixture(locate), createFixture(locate)]);
      try {
        await Promise.all([seedPlain(db, ROWS), seedPlain(calm, ROWS)]);
        await db.start({ maxChunkRows: 25, restMs: 5 });
        for (let kill = 0; kill < KILLS; kill++) {
          const before = await passed(db);
          const worker = startWorker(
            { databaseUrl: db.url, queue: db.location, env: process.env },
            TIMINGS,
          );
          while ((await passed(db)) === before) {
            if (worker.exitCode !== null) throw new Error('the worker ended by itself');
            await sleep(5);
          }
          await sleep(Math.random() * 50);
          worker.kill('SIGKILL');
          await once(worker, 'exit');
          if (kill % 2 === 0) await forgetJobs(db);
        }
        expect(await passed(db)).toBeLessThan(3 * ROWS); // there is something left to go on with
        await db.work();
        const runs = await db.finished();
        expect(runs.map(({ status }) => status)).toEqual(Array(4).fill('completed'));
        for (const { rows, changed } of runs) expect(changed).toBe(rows); // each row once, whatever was repeated
        // At most one chunk a lane and kill is repeated: seven lanes.
        expect(runs.reduce((sum, { revivals }) => sum + revivals, 0)).toBeLessThanOrEqual(
          7 * (KILLS + 1),
        );

        await calm.work();
        await calm.start();
        await calm.finished();
        expect(await contents(db)).toEqual(await contents(calm));
      } finally {
        await Promise.all([db.drop(), calm.drop()]);
      }
    },
  );
});

const passed = async (db: Fixture) =>
  (
    await readStatus(
      db.pool,
      TRANSFORMS.map(({ name }) => name),
    )
  ).reduce((sum, run) => sum + run.passed, 0);

/** What FLUSHALL does to a queue, without harm to those of other tests. */
async function forgetJobs(db: Fixture): Promise<void> {
  const { location } = db;
  if (location.kind === 'postgres') {
    const tables = await db.sql(
      `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname = 'annals' AND tablename LIKE '%job%'`,
    );
    if (tables.length > 0) await db.sql(`TRUNCATE ${tables.map(({ name }) => name).join(', ')}`);
    return;
  }
  const redis = new Redis(location.url);
  const keys = await redis.keys(`${location.prefix}:*`);
  if (keys.length > 0) await redis.del(keys);
  redis.disconnect();
}
