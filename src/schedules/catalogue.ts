import type { Config } from '../config.ts';
import type { PrismaClient } from '../database/client.ts';
import { Closer } from '../closer.ts';
import { trimDeadLetters } from '../deadLetters/trim.ts';
import { closeIdleAccounts } from '../ledger/closed.ts';
import type { TaskQueueName } from '../queues/catalogue.ts';
import type { QueueLocation } from '../queues/backend.ts';
import { openEventQueues } from '../queues/eventQueues.ts';
import type { Logger } from '../logger.ts';
import { expireRows } from '../services/expiry.ts';
import { recountSessions } from '../services/sessionCounts.ts';

export interface RunOptions {
  /** Ends the work at the next place where nothing is half done. */
  signal: AbortSignal;
  /** Told how far it is. */
  onProgress: (sofar: object) => Promise<void>;
  /** What the last attempt at this run told, if it told anything before it was ended or killed. */
  resume?: never; // only the work that told it knows its type
}

/** What there is to work on. */
export interface Ground {
  prisma: PrismaClient;
  queue: QueueLocation;
  log: Logger;
}

/** Work that is done again and again. */
interface Schedule {
  /** The setting that holds its cron pattern, or `off`. */
  setting: keyof Config & `ANNALS_${string}_SCHEDULE`;
  /** Does it once. What it returns is the job's return value, and is logged. */
  run: (ground: Ground, options: RunOptions) => Promise<object>;
}

/**
 * Every schedule by its queue, in which each run of it is a job. Both that are on by default close
 * idle accounts besides: that has to be done however one of them is switched off.
 */
export const SCHEDULES = {
  'session-counts': {
    setting: 'ANNALS_SESSION_COUNTS_SCHEDULE',
    run: async ({ prisma }, options) => {
      const done = await recountSessions(prisma, options);
      await closeIdleAccounts(prisma, options);
      return done;
    },
  },
  expiry: {
    setting: 'ANNALS_EXPIRY_SCHEDULE',
    run: ({ prisma }, options) => expireRows(prisma, options),
  },
  'dead-letters': {
    setting: 'ANNALS_DEAD_LETTERS_SCHEDULE',
    run: async ({ prisma, queue, log }, options) => {
      const closer = new Closer(log);
      try {
        const done = await trimDeadLetters(prisma, await openEventQueues(queue, closer), options);
        await closeIdleAccounts(prisma, options);
        return done;
      } finally {
        await closer.close(5000);
      }
    },
  },
} as const satisfies Partial<Record<TaskQueueName, Schedule>>;

export type ScheduleName = keyof typeof SCHEDULES;

export const SCHEDULE_NAMES = Object.keys(SCHEDULES) as ScheduleName[];
