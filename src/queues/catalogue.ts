import { EVENT_KINDS, type EventKind } from './events.ts';

/** How a queue keeps and repeats its jobs. */
export interface QueuePolicy {
  /** Finished jobs that stay to be looked at: at most `count`, no longer than `age` seconds. */
  keepCompleted: { count: number; age: number };
  /** Failed jobs that stay likewise; false where none may go without being counted. */
  keepFailed: { count: number; age: number } | false;
  /** Delay before an attempt is repeated, in milliseconds, doubling from the first. */
  backoffMs: number;
}

const DAY_SECONDS = 24 * 60 * 60;

const EVENT_POLICY: QueuePolicy = {
  // A completed job holds up to a megabyte of events that are rows by now.
  keepCompleted: { count: 10, age: 3600 },
  keepFailed: false, // dead letters, which `trimDeadLetters` counts
  backoffMs: 500,
};

/** Every queue by its name, and all that is particular to it. An event queue is named like its kind. */
export const QUEUES: Readonly<Record<EventKind, QueuePolicy>> = {
  'memory-access': EVENT_POLICY,
  transition: EVENT_POLICY,
  metrics: EVENT_POLICY,
  'session-event': EVENT_POLICY,
};

/** A day of runs, one every five minutes; a run that fails is tried again within two minutes. */
const SCHEDULE_POLICY: QueuePolicy = {
  keepCompleted: { count: 288, age: 7 * DAY_SECONDS },
  keepFailed: { count: 288, age: 7 * DAY_SECONDS },
  backoffMs: 5000,
};

/**
 * Queues whose jobs are not events but tasks of Annals itself. PostgreSQL holds what they are
 * about; a job only says that somebody should look, and is made anew if it is lost.
 */
export const TASK_QUEUES = {
  /** Chunks of backfills. */
  backfill: {
    keepCompleted: { count: 100, age: 3600 },
    keepFailed: { count: 100, age: DAY_SECONDS },
    backoffMs: 500,
  },
  /** Runs of the session-count recount; each one's return value says how much drift it found. */
  'session-counts': SCHEDULE_POLICY,
  /** Runs that delete what has expired. */
  expiry: SCHEDULE_POLICY,
  /** Runs that discard dead letters of which there are too many, or that are too old. */
  'dead-letters': SCHEDULE_POLICY,
} as const satisfies Record<string, QueuePolicy>;

export type TaskQueueName = keyof typeof TASK_QUEUES;

export { EVENT_KINDS, type EventKind };

/**
 * Entries that a queue's own event stream keeps at most (BullMQ's default is 10,000); nothing of
 * Annals reads it but the board.
 */
export const EVENT_STREAM_MAX_LENGTH = 1000;
