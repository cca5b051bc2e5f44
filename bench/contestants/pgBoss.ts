import { setTimeout as sleep } from 'node:timers/promises';

import PgBoss from 'pg-boss';

import { createPrismaClient } from '../../src/database/client.ts';
import type { Contestant } from './contestant.ts';
import { createBatch, type QueuedEvent } from './prismaRows.ts';

const QUEUE = 'events';
const SCHEMA = 'bench_pgboss';

/** Jobs in one `insert`, and in one `fetch`. */
const BATCH = 1000;

/** Loops that fetch, write and complete. */
const LOOPS = 2;

/** Milliseconds after which a loop that found nothing looks again. */
const IDLE_MS = 20;

const open = async (databaseUrl: string) => {
  const boss = new PgBoss({
    connectionString: databaseUrl,
    schema: SCHEMA,
    supervise: false,
    schedule: false,
  });
  boss.on('error', (error) => console.error(error.message));
  await boss.start();
  return boss;
};

/** Its `work` waits half a second between two batches at least; `fetch`, in a loop, does not. */
export const pgBoss: Contestant = {
  about: `pg-boss, insert of ${BATCH} jobs, fetch of ${BATCH} in ${LOOPS} loops, createMany`,
  maxEvents: 50_000,
  prepare: async ({ databaseUrl }) => {
    const boss = await open(databaseUrl);
    await boss.createQueue(QUEUE);
    await boss.stop();
  },
  produce: async ({ databaseUrl }, events) => {
    const boss = await open(databaseUrl);
    return async () => {
      for (let from = 0; from < events.length; from += BATCH) {
        await boss.insert(
          events.slice(from, from + BATCH).map((data) => ({ name: QUEUE, data: data as object })),
        );
      }
      await boss.stop({ graceful: false });
    };
  },
  consume: async ({ databaseUrl }, committed) => {
    const boss = await open(databaseUrl);
    const prisma = createPrismaClient(databaseUrl, { poolSize: LOOPS });
    await prisma.$connect();
    let isStopping = false;
    const loop = async () => {
      while (!isStopping) {
        const jobs = await boss.fetch<QueuedEvent>(QUEUE, { batchSize: BATCH });
        if (jobs.length === 0) {
          await sleep(IDLE_MS);
          continue;
        }
        await createBatch(
          prisma,
          jobs.map(({ data }) => data),
        );
        committed(jobs.length);
        await boss.complete(
          QUEUE,
          jobs.map(({ id }) => id),
        );
      }
    };
    const loops = Promise.all(Array.from({ length: LOOPS }, loop));
    loops.catch((error: unknown) => {
      console.error(error);
      process.exit(1);
    });
    return {
      stop: async () => {
        isStopping = true;
        await loops;
        await boss.stop({ graceful: false });
        await prisma.$disconnect();
      },
    };
  },
};
