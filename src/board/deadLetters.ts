import type { Job, Queue } from 'bullmq';

/** Dead letters that have a reason in common. */
export interface DeadLetterGroup {
  queue: string;
  /** With ids and values left out, so that what is alike is one. */
  reason: string;
  jobs: number;
}

/** Dead letters of a queue that are looked at: the newest. Each may hold a megabyte of events. */
export const LOOKED_AT = 50;

const PAGE = 10;

/** Groups the newest dead letters of a queue by their reasons. */
export async function readDeadLetters(queue: Queue): Promise<DeadLetterGroup[]> {
  const groups = new Map<string, DeadLetterGroup>();
  for (let start = 0; start < LOOKED_AT; start += PAGE) {
    const jobs = await queue.getJobs(['failed'], start, start + PAGE - 1, false);
    for (const reason of jobs.flatMap(reasonsOf)) {
      const group = groups.get(reason) ?? { queue: queue.name, reason, jobs: 0 };
      group.jobs++;
      groups.set(reason, group);
    }
    if (jobs.length < PAGE) break;
  }
  return [...groups.values()].sort((a, b) => b.jobs - a.jobs);
}

/**
 * The reasons that a job's failure names, each once.
 *
 * @example '2 of the job's events not stored: memoryId: unknown id "a"; memoryId: unknown id "b"'
 * // ['memoryId: unknown id …']
 */
function reasonsOf({ failedReason }: Job): string[] {
  const reasons = failedReason
    .replace(/^\d+ of the job's events not stored: /, '')
    .replaceAll(/"(?:[^"\\]|\\.)*"/g, '…')
    .replaceAll(/\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/gi, '…')
    .split('; ')
    .map((reason) => reason.replaceAll(/\s+/g, ' ').slice(0, 160));
  return [...new Set(reasons)].filter((reason) => !/^and \d+ more$/.test(reason));
}
