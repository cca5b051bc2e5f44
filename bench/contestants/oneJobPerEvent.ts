import { Queue, Worker } from 'bullmq';

import { createPrismaClient } from '../../src/database/client.ts';
import type { Contestant } from './contestant.ts';
import { createOne, type QueuedEvent } from './prismaRows.ts';

const QUEUE = 'events';
const PREFIX = 'bench_one';

/** Jobs in one `addBulk`, which BullMQ's documentation recommends over `add`. */
const BULK = 500;

/** Jobs at once, and connections to PostgreSQL for them. */
const CONCURRENCY = 32;

/** A job for each event, and Prisma's `create` and `update` in it. */
export const oneJobPerEvent: Contestant = {
  about: `BullMQ on redis, a job for each event (addBulk), Prisma create and update in it, ${CONCURRENCY} at once`,
  maxEvents: 20_000,
  needsRedis: true,
  produce: async ({ redisUrl }, events) => {
    const queue = new Queue(QUEUE, { connection: { url: redisUrl }, prefix: PREFIX });
    await queue.waitUntilReady();
    return async () => {
      for (let from = 0; from < events.length; from += BULK) {
        await queue.addBulk(
          events.slice(from, from + BULK).map((data) => ({
            name: data.kind,
            data,
            opts: { removeOnComplete: true },
          })),
        );
      }
      await queue.close();
    };
  },
  consume: async ({ redisUrl, databaseUrl }, committed) => {
    const prisma = createPrismaClient(databaseUrl, { poolSize: CONCURRENCY });
    await prisma.$connect();
    const worker = new Worker<QueuedEvent>(
      QUEUE,
      async ({ data }) => {
        await createOne(prisma, data);
        committed(1);
      },
      {
        connection: { url: redisUrl, maxRetriesPerRequest: null },
        prefix: PREFIX,
        concurrency: CONCURRENCY,
      },
    );
    worker.on('failed', (_, error) => console.error(error.message));
    await worker.waitUntilReady();
    return {
      stop: async () => {
        await worker.close();
        await prisma.$disconnect();
      },
    };
  },
};
