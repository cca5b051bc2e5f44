import { eventsOf, producerOf } from '../deadLetters/deadLetter.ts';
import { readJob } from '../queues/readJob.ts';
import { EVENT_KINDS } from '../queues/catalogue.ts';
import type { EventQueues } from '../queues/eventQueues.ts';
import type { Accounts } from './accounts.ts';

/** Jobs that are read at once; each may hold a megabyte. */
const PAGE = 8;

/**
 * All states in which a job holds events that are not committed. PostgreSQL is asked for one after
 * the other, so `active` comes again: no job is in every state but the one that is asked for.
 */
const STATES = [
  'active',
  'delayed',
  'prioritized',
  'waiting-children',
  'waiting',
  'active',
  'failed',
] as const;

/**
 * Counts the events on the queues and in dead letters. The names of all jobs are taken at once, and
 * each job is read once, in whatever state it then is: one that moves on meanwhile is not counted
 * twice here. What has been committed by then is for the ledger to tell, which is read afterwards.
 */
export async function countQueued(
  queues: EventQueues,
  accounts: Accounts,
  onJob: () => void,
): Promise<void> {
  for (const kind of EVENT_KINDS) {
    const queue = queues[kind];
    const ids = await queue.getRanges([...STATES], 0, -1);
    for (let start = 0; start < ids.length; start += PAGE) {
      await Promise.all(
        ids.slice(start, start + PAGE).map(async (id) => {
          onJob();
          const job = await readJob(queue, id);
          if (!job) return;
          const isFinished = job.finishedOn !== undefined;
          if (isFinished && !(await job.isFailed())) return;
          const producer = producerOf(job.data);
          accounts.told(kind, producer);
          const place = isFinished ? 'deadLetters' : 'queued';
          accounts.add(place, kind, producer.id, eventsOf(job.data).length);
        }),
      );
    }
  }
}
