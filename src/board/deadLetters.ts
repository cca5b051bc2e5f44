import type { Job, Queue } from 'bullmq';

import { toDeadLetter } from '../deadLetters/deadLetter.ts';
import type { EventJob } from '../queues/backend.ts';
import { EVENT_KINDS } from '../queues/catalogue.ts';
import { readJob } from '../queues/readJob.ts';

/** Dead letters that have a reason in common. */
export interface DeadLetterGroup {
  queue: string;
  /** With ids and values left out, so that what is alike is one. */
  reason: string;
  /** Events, or jobs where a job holds none. */
  count: number;
}

export interface DeadLetterReasons {
  groups: DeadLetterGroup[];
  /** Jobs that are not among these as yet: they come in with the next looks. */
  unread: number;
}

/** Milliseconds that one look reads for. */
const READ_MS = 1000;

/** Jobs that are read at once: each may hold a megabyte of events. */
const PAGE = 10;

/** What a job said when it was read. */
interface Letter {
  /** Milliseconds since 1970. */
  finishedOn: number;
  /** How many of its events have which reason. */
  reasons: ReadonlyMap<string, number>;
}

const UNREADABLE: Letter = { finishedOn: 0, reasons: new Map([['the job is not JSON', 1]]) };

/**
 * Groups all dead letters of a queue by their reasons. What a job says is kept, so that a look costs
 * little however many there are, and a great many at once are read over several looks.
 */
export class DeadLetterReader {
  readonly #queue: Queue;
  #known = new Map<string, Letter>();

  constructor(queue: Queue) {
    this.#queue = queue;
  }

  async read(): Promise<DeadLetterReasons> {
    // The last to have failed comes first. One that was retried in vain is among these and may say
    // something else now; where a page is as it was, all that are older are too.
    const ids = await this.#queue.getRanges(['failed'], 0, -1, false);
    const until = performance.now() + READ_MS;
    let mayHaveChanged = true;
    let start = 0;
    for (; start < ids.length && performance.now() < until; start += PAGE) {
      const page = ids.slice(start, start + PAGE);
      const unread: string[] = mayHaveChanged ? page : page.filter((id) => !this.#known.has(id));
      const jobs = await Promise.all(
        unread.map((id) => readJob(this.#queue, id, () => this.#known.set(id, UNREADABLE))),
      );
      // One that was retried or removed meanwhile is none.
      const changed = jobs.filter((job) => job && this.#take(job));
      mayHaveChanged &&= changed.length > 0;
    }
    if (mayHaveChanged) for (const id of ids.slice(start)) this.#known.delete(id);
    this.#known = new Map(
      ids.flatMap((id) => {
        const letter = this.#known.get(id);
        return letter ? [[id, letter] as const] : []; // those that are gone are forgotten
      }),
    );
    const groups = new Map<string, DeadLetterGroup>();
    const reasons = [...this.#known.values()].flatMap((letter) => [...letter.reasons]);
    for (const [reason, count] of reasons) {
      const group = groups.get(reason) ?? { queue: this.#queue.name, reason, count: 0 };
      group.count += count;
      groups.set(reason, group);
    }
    return {
      groups: [...groups.values()].sort((a, b) => b.count - a.count),
      unread: ids.length - this.#known.size,
    };
  }

  /** Whether the job has failed anew since it was read, or is read for the first time. */
  #take(job: Job): boolean {
    const [id, finishedOn] = [job.id ?? '', job.finishedOn ?? 0];
    if (this.#known.get(id)?.finishedOn === finishedOn) return false;
    this.#known.set(id, { finishedOn, reasons: tally(reasonsOf(this.#queue.name, job)) });
    return true;
  }
}

function tally(reasons: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const reason of reasons.map(withoutValues)) {
    counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
  return counts;
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
    .replaceAll(/\b\d+(?:\.\d+)?\b/g, '…')
    .replaceAll(/\s+/g, ' ')
    .slice(0, 200);
}
