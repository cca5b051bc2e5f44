import type { Config } from '../config.ts';
import type { PrismaClient } from '../database/client.ts';
import type { TaskQueueName } from '../queues/catalogue.ts';
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

/** Work that is done again and again. */
interface Schedule {
  /** The setting that holds its cron pattern, or `off`. */
  setting: keyof Config & `ANNALS_${string}_SCHEDULE`;
  /** Does it once. What it returns is the job's return value, and is logged. */
  run: (prisma: PrismaClient, options: RunOptions) => Promise<object>;
}

/** Every schedule by its queue, in which each run of it is a job. */
export const SCHEDULES = {
  'session-counts': { setting: 'ANNALS_SESSION_COUNTS_SCHEDULE', run: recountSessions },
  expiry: { setting: 'ANNALS_EXPIRY_SCHEDULE', run: expireRows },
} as const satisfies Partial<Record<TaskQueueName, Schedule>>;

export type ScheduleName = keyof typeof SCHEDULES;

export const SCHEDULE_NAMES = Object.keys(SCHEDULES) as ScheduleName[];
