import type { Queue } from 'bullmq';

import type { TaskQueueName } from '../queues/catalogue.ts';
import type { Recount } from '../services/sessionCounts.ts';

/** The queue whose runs check the agents' session counts. */
const QUEUE: TaskQueueName = 'session-counts';

/** The last scheduled recount that came to its end, and the drift that it found and healed. */
export interface LastRecount extends Recount {
  /** Milliseconds since 1970. */
  finishedAt: number;
  tookMs: number;
}

/** The last recount that the queue remembers, or null. */
export async function readLastRecount(queues: readonly Queue[]): Promise<LastRecount | null> {
  const queue = queues.find(({ name }) => name === QUEUE);
  const [job] = (await queue?.getJobs(['completed'], 0, 0, false)) ?? [];
  if (!job?.finishedOn) return null;
  // Anybody may add a job, and have it return anything.
  const { checked, agents, drift, tookMs } = (job.returnvalue ?? {}) as Partial<LastRecount>;
  const figures = { checked, agents, drift, tookMs };
  if (!Object.values(figures).every((figure) => Number.isFinite(figure))) return null;
  return { ...(figures as Omit<LastRecount, 'finishedAt'>), finishedAt: job.finishedOn };
}
