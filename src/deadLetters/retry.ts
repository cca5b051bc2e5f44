import { ErrorCode } from 'bullmq';

import type { DeadLetter } from './deadLetter.ts';

/**
 * Gives a dead letter back to its queue, as boards do it. BullMQ moves the job in one step, so of
 * several who retry it at once one does. However often it comes to the workers, its events commit
 * once, since their ids are the keys of their rows.
 *
 * @returns whether it did; otherwise the job is no dead letter any more
 */
export async function retryDeadLetter({ job }: DeadLetter): Promise<boolean> {
  try {
    // It waits for an unknown parent as long as a new one does.
    await job.retry('failed', { resetAttemptsMade: true });
    return true;
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (code === ErrorCode.JobNotExist || code === ErrorCode.JobNotInState) return false;
    throw error;
  }
}
