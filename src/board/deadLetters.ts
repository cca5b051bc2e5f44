import type { Job, Queue } from 'bullmq';

import { toDeadLetter } from '../deadLetters/deadLetter.ts';
import type { EventJob } from '../queues/backend.ts';
import { EVENT_KINDS } from '../queues/catalogue.ts';

/** Dead letters that have a reason in common. */
export interface DeadLetterGroup {
  queue: string;
  /** With ids and values left out, so that what is alike is one. */
  reason: string;
  /** Events, or jobs where a job holds none. */
  count: number;
}

/** Dead letters of a queue that are looked at: the newest. Each may hold a megabyte of events. */
export const LOOKED_AT = 50;

const PAGE = 10;

/** Groups the newest dead letters of a queue by their reasons. */
export async function readDeadLetters(queue: Queue): Promise<DeadLetterGroup[]> {
  const groups = new Map<string, DeadLetterGroup>();
  for (let start = 0; start < LOOKED_AT; start += PAGE) {
    const jobs = await queue.getJobs(['failed'], start, start + PAGE - 1, false);
    for (const text of jobs.flatMap((job) => reasonsOf(queue.name, job))) {
      const reason = withoutValues(text);
      const group = groups.get(reason) ?? { queue: queue.name, reason, count: 0 };
      group.count++;
      groups.set(reason, group);
    }
    if (jobs.length < PAGE) break;
  }
  return [...groups.values()].sort((a, b) => b.count - a.count);
}

function reasonsOf(queue: string, job: Job): string[] {
  const kind = EVENT_KINDS.find((known) => known === queue);
  if (!kind) return [job.failedReason];
  return toDeadLetter(kind, job as EventJob).events.map(({ reason }) => reason);
}

/** @example 'memoryId: unknown id "a"' → 'memoryId: unknown id …' */
function withoutValues(reason: string): string {
  return reason
    .replaceAll(/"(?:[^"\\]|\\.)*"/g, '…')
    .replaceAll(/\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/gi, '…')
    .replaceAll(/\s+/g, ' ')
    .slice(0, 200);
}
