import type { Job, Queue } from 'bullmq';

import { outlast, reasonOf } from '../outage.ts';
import { openQueue, openTaskQueue, prepareQueues, type QueueLocation } from '../queues/backend.ts';
import { EVENT_KINDS, TASK_QUEUES, type TaskQueueName } from '../queues/catalogue.ts';
import { openRedis } from '../queues/connection.ts';
import { readJob } from '../queues/readJob.ts';

/** Jobs of a queue, by what they wait for. */
export interface QueueFigures {
  name: string;
  /** Ready to be taken. */
  waiting: number;
  active: number;
  /** Tried again, or begun, later. */
  delayed: number;
  deadLetters: number;
  isPaused: boolean;
  /** Milliseconds since the oldest job that waits or is active was made; null without one, or where it cannot be read. */
  oldestMs: number | null;
}

export interface AllQueues {
  /** @throws {Error} that says why not, while they are not open */
  get(): readonly Queue[];
  /** Resolves when they are open; rejects with what no waiting mends, such as a right that is missing. */
  ready: Promise<readonly Queue[]>;
  close(): Promise<unknown>;
}

/** Opens every queue of the catalogue, to look at and to steer, as soon as their server answers. */
export function openAllQueues(location: QueueLocation): AllQueues {
  const stopping = new AbortController();
  let opened: ReturnType<typeof openEach> | undefined;
  let open: readonly Queue[] | undefined;
  let reason = 'not reached yet';
  const note = (error: unknown) => (reason = reasonOf(error));
  // BullMQ remembers for ever that a queue's first call failed: after that all are opened anew.
  const attempt = async () => {
    await opened?.close();
    await prepareQueues(location);
    opened = openEach(location, note);
    await Promise.all(opened.queues.map((queue) => queue.waitUntilReady()));
    return (open = opened.queues);
  };
  const ready = outlast(attempt, { signal: stopping.signal, onAway: note });
  ready.catch(note);
  return {
    get: () => {
      if (!open) throw new Error(reason);
      return open;
    },
    ready,
    close: async () => {
      stopping.abort();
      await opened?.close();
    },
  };
}

function openEach(location: QueueLocation, onError: (error: Error) => void) {
  // BullMQ cannot let go of a connection of its own that was never made.
  const redis = location.kind === 'redis' ? openRedis(location) : undefined;
  redis?.on('error', onError);
  const tasks = Object.keys(TASK_QUEUES) as TaskQueueName[];
  const queues = [
    ...EVENT_KINDS.map((kind) => openQueue(location, kind, redis) as Queue),
    ...tasks.map((name) => openTaskQueue(location, name, redis) as Queue),
  ];
  for (const queue of queues) queue.on('error', onError); // the call that matters rejects
  return {
    queues,
    /** Says goodbye to nobody: what was asked of these queues has been answered, or never will be. */
    close: async () => {
      redis?.disconnect();
      await Promise.allSettled(queues.map((queue) => queue.close()));
    },
  };
}

export async function readQueue(queue: Queue): Promise<QueueFigures> {
  const [counts, { 0: waiting = 0 }, isPaused, oldest] = await Promise.all([
    queue.getJobCounts('prioritized', 'active', 'delayed', 'failed'),
    // In PostgreSQL the jobs of a paused queue have a state that `getJobCounts` does not take.
    queue.getCountsPerPriority([0]),
    queue.isPaused(),
    Promise.all(UNDONE.map((state) => oldestOf(queue, state))),
  ]);
  const { prioritized = 0, active = 0, delayed = 0, failed = 0 } = counts;
  const times = oldest.flatMap((job) => (job ? [job.timestamp] : []));
  return {
    name: queue.name,
    waiting: waiting + prioritized,
    active,
    delayed,
    deadLetters: failed,
    isPaused,
    oldestMs: times.length === 0 ? null : Math.max(0, Date.now() - Math.min(...times)),
  };
}

/** Prioritized jobs stand by priority, so of these it is the first to be taken that is looked at. */
const UNDONE = ['waiting', 'prioritized', 'active'] as const;

async function oldestOf(queue: Queue, state: (typeof UNDONE)[number]): Promise<Job | undefined> {
  const [id] = await queue.getRanges([state], 0, 0, true);
  return id === undefined ? undefined : readJob(queue, id);
}
