import type { Queue } from 'bullmq';

import { TASK_QUEUES } from '../queues/catalogue.ts';
import type { ScheduleName } from './catalogue.ts';

/** Attempts of a run at most; what fails them all is done by the next period's run. */
const ATTEMPTS = 5;

/** States of a job that is still to come to its end. */
const PENDING = ['delayed', 'waiting', 'prioritized', 'active'];

/**
 * Makes the queue's job scheduler what `pattern` says, or removes it for `off`. Any number of
 * processes may do this at once, as often as they like, and there is one run a period: a cron
 * pattern gives each period a moment that all agree on, and the job's id is that moment. (BullMQ's
 * fixed intervals begin with the clock of whoever comes first, and two that come first at once make
 * two jobs.) A scheduler that is as it should be is left alone, since BullMQ would remove the job of
 * a period that nobody has come to yet, and with it the run.
 */
export async function ensureScheduler(
  queue: Pick<Queue, 'getJobScheduler' | 'getJob' | 'upsertJobScheduler' | 'removeJobScheduler'>,
  name: ScheduleName,
  pattern: string,
): Promise<void> {
  const known = await queue.getJobScheduler(name);
  if (pattern === 'off') {
    if (known) await queue.removeJobScheduler(name);
    return;
  }
  if (known?.pattern === pattern && known.next != null) {
    if (known.next > Date.now()) return;
    // Its moment has come: the job waits or is at work, or else the queue has lost it.
    const job = await queue.getJob(`repeat:${name}:${known.next}`);
    if (job && PENDING.includes(await job.getState())) return;
  }
  const backoff = { type: 'exponential', delay: TASK_QUEUES[name].backoffMs };
  await queue.upsertJobScheduler(
    name,
    { pattern, tz: 'UTC' },
    { name, opts: { attempts: ATTEMPTS, backoff } },
  );
}
