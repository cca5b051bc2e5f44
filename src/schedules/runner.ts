import { WaitingError, type Job } from 'bullmq';

import { Closer } from '../closer.ts';
import type { Config } from '../config.ts';
import { createPrismaClient } from '../database/client.ts';
import { serverMessage } from '../database/faults.ts';
import type { Logger } from '../logger.ts';
import {
  openTaskQueue,
  openTaskWorker,
  prepareQueues,
  type QueueLocation,
} from '../queues/backend.ts';
import { reportQueue } from '../queues/queueLog.ts';
import { SCHEDULE_NAMES, SCHEDULES, type Ground, type ScheduleName } from './catalogue.ts';
import { ensureScheduler } from './scheduler.ts';

export interface SchedulesOptions {
  databaseUrl: string;
  queue: QueueLocation;
  config: Pick<Config, (typeof SCHEDULES)[ScheduleName]['setting'] | 'ANNALS_JOB_LOCK_MS'>;
  log: Logger;
  /** Milliseconds between two looks whether the schedules are in the queue. Default 10,000. */
  lookEveryMs?: number;
}

export interface Schedules {
  /** Lets what is under way come to the end of its chunk, and hands its job back. Never rejects. */
  stop(deadlineMs: number): Promise<void>;
}

/**
 * Puts the schedules into the queue and takes their runs. Start it in as many processes as you
 * like: each run is done by one of them. A queue that lost its schedules, such as a Redis that came
 * back empty, gets them back at the next look.
 */
export async function startSchedules(options: SchedulesOptions): Promise<Schedules> {
  const { databaseUrl, queue: location, config, log } = options;
  const closer = new Closer(log);
  const stopping = new AbortController();
  const prisma = createPrismaClient(databaseUrl, {
    poolSize: SCHEDULE_NAMES.length,
    applicationName: 'annals schedules',
  });
  closer.add('schedules database', () => prisma.$disconnect());

  await prepareQueues(location);
  for (const name of SCHEDULE_NAMES) {
    const pattern = config[SCHEDULES[name].setting];
    const logOfQueue = log.child({ queue: name });
    keepScheduler(location, name, pattern, options.lookEveryMs ?? 10_000, logOfQueue, closer);
    if (pattern === 'off') continue;

    const worker = openTaskWorker(
      location,
      name,
      createRun(name, { prisma, queue: location, log: logOfQueue }, stopping),
      {
        concurrency: 1,
        lockDuration: config.ANNALS_JOB_LOCK_MS,
      },
    );
    reportQueue(worker, location, logOfQueue);
    worker.on('failed', (job, error) =>
      logOfQueue.warn(
        { job: job?.id, attempt: job?.attemptsMade, reason: serverMessage(error) },
        'job failed',
      ),
    );
    closer.add(
      `${name} worker`,
      () => worker.pause().then(() => worker.close(true)),
      () => worker.close(true),
    );
  }
  return {
    stop: (deadlineMs) => {
      stopping.abort();
      return closer.close(deadlineMs);
    },
  };
}

/** Looks now and again whether the queue's scheduler is as it should be, and mends it. */
function keepScheduler(
  location: QueueLocation,
  name: ScheduleName,
  pattern: string,
  everyMs: number,
  log: Logger,
  closer: Closer,
): void {
  const queue = openTaskQueue(location, name);
  queue.on('error', () => {}); // a call that matters rejects
  let looking: Promise<void> | undefined;
  const look = () => {
    looking ??= ensureScheduler(queue, name, pattern)
      .catch((error: Error) => log.debug({ reason: error.message }, 'could not schedule'))
      .finally(() => (looking = undefined));
  };
  look();
  const timer = setInterval(look, everyMs);
  closer.add(
    `${name} scheduler`,
    () => {
      clearInterval(timer);
      return queue.close();
    },
    () => queue.disconnect(),
  );
}

/** The processor: does the work once, and says what came of it. */
function createRun(name: ScheduleName, ground: Ground, stopping: AbortController) {
  const { log } = ground;
  return async (job: Job, token?: string): Promise<object> => {
    const since = performance.now();
    try {
      const done = await SCHEDULES[name].run(ground, {
        signal: stopping.signal,
        // Work that is done twice finds nothing the second time: what is lost here is a figure.
        onProgress: (sofar) => job.updateProgress(sofar).catch(() => {}),
        ...(isTold(job.progress) && { resume: job.progress as never }),
      });
      const result = { ...done, tookMs: Math.round(performance.now() - since) };
      log.info({ job: job.id, ...result }, `${name} done`);
      return result;
    } catch (error) {
      if (!stopping.signal.aborted) throw error;
      // Another process goes on where this one has got to.
      await job.moveToWait(token);
      throw new WaitingError();
    }
  };
}

/** BullMQ's progress is 0 until it is set. */
const isTold = (progress: Job['progress']) => typeof progress === 'object' && progress !== null;
