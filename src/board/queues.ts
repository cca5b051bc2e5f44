import type { Job, Queue } from 'bullmq';

import { openQueue, openTaskQueue, type QueueLocation } from '../queues/backend.ts';
import { EVENT_KINDS, TASK_QUEUES, type TaskQueueName } from '../queues/catalogue.ts';

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
  /** Milliseconds since the oldest job that waits or is active was made; null without one. */
  oldestMs: number | null;
}

/** Opens every queue of the catalogue, to look at and to steer. */
export function openAllQueues(location: QueueLocation): Queue[] {
  const tasks = Object.keys(TASK_QUEUES) as TaskQueueName[];
  const queues = [
    ...EVENT_KINDS.map((kind) => openQueue(location, kind) as Queue),
    ...tasks.map((name) => openTaskQueue(location, name) as Queue),
  ];
  for (const queue of queues) queue.on('error', () => {}); // the call that matters rejects
  return queues;
}

export async function readQueue(queue: Queue): Promise<QueueFigures> {
  const [counts, { 0: waiting = 0 }, isPaused, oldest] = await Promise.all([
    queue.getJobCounts('prioritized', 'active', 'delayed', 'failed'),
    // In PostgreSQL the jobs of a paused queue have a state that `getJobCounts` does not take.
    queue.getCountsPerPriority([0]),
    queue.isPaused(),
    Promise.all([oldestOf(queue, 'waiting'), oldestOf(queue, 'active')]),
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

async function oldestOf(queue: Queue, state: 'waiting' | 'active'): Promise<Job | undefined> {
  return (await queue.getJobs([state], 0, 0, true))[0];
}
