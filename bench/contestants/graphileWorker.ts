import { EventEmitter, once } from 'node:events';

import { Logger, makeWorkerUtils, run, type WorkerEvents } from 'graphile-worker';

import { createPrismaClient } from '../../src/database/client.ts';
import type { Contestant } from './contestant.ts';
import { createBatch, type QueuedEvent } from './prismaRows.ts';

const TASK = 'events';
const SCHEMA = 'bench_graphile';

/** Events in the payload of one batch job. */
const BATCH = 500;

/** Jobs in one `addJobs`. */
const BULK = 4;
const CONCURRENCY = 4;

const logger = new Logger(() => (level, message) => {
  if (level === 'error') console.error(message);
});

/** Batch jobs: the payload is a list of events. */
export const graphileWorker: Contestant = {
  about: `graphile-worker, batch jobs of ${BATCH} events, ${CONCURRENCY} at once, local queue, createMany`,
  maxEvents: 50_000,
  prepare: async ({ databaseUrl }) => {
    const utils = await makeWorkerUtils({
      connectionString: databaseUrl,
      schema: SCHEMA,
      logger,
    });
    await utils.migrate();
    await utils.release();
  },
  produce: async ({ databaseUrl }, events) => {
    const utils = await makeWorkerUtils({
      connectionString: databaseUrl,
      schema: SCHEMA,
      logger,
    });
    return async () => {
      for (let from = 0; from < events.length; from += BULK * BATCH) {
        const jobs = [];
        for (
          let batch = from;
          batch < Math.min(from + BULK * BATCH, events.length);
          batch += BATCH
        ) {
          jobs.push({ identifier: TASK, payload: events.slice(batch, batch + BATCH) });
        }
        await utils.addJobs(jobs);
      }
      await utils.release();
    };
  },
  consume: async ({ databaseUrl }, committed) => {
    const prisma = createPrismaClient(databaseUrl, { poolSize: CONCURRENCY });
    await prisma.$connect();
    const events: WorkerEvents = new EventEmitter();
    const isListening = once(events, 'pool:listen:success'); // before that it only looks every 2 s
    const runner = await run({
      events,
      // What its page on performance recommends for many jobs.
      preset: {
        worker: {
          connectionString: databaseUrl,
          schema: SCHEMA,
          logger,
          concurrentJobs: CONCURRENCY,
          localQueue: { size: CONCURRENCY + 1 },
          completeJobBatchDelay: 0,
          failJobBatchDelay: 0,
        },
      },
      noHandleSignals: true,
      taskList: {
        [TASK]: async (payload) => {
          const batch = payload as QueuedEvent[];
          await createBatch(prisma, batch);
          committed(batch.length);
        },
      },
    });
    await isListening;
    return {
      stop: async () => {
        await runner.stop();
        await prisma.$disconnect();
      },
    };
  },
};
