import type { EventJob, EventQueue } from '../queues/backend.ts';
import { EVENT_KINDS, type EventKind } from '../queues/catalogue.ts';
import type { EventQueues } from '../queues/eventQueues.ts';
import { readJob } from '../queues/readJob.ts';
import { toDeadLetter, type DeadLetter } from './deadLetter.ts';

/** Which dead letters are meant: those that all of the given conditions hold for. */
export interface DeadLetterFilter {
  /** Default: all kinds. */
  kind?: EventKind;
  /** Such as `metrics/12`, or `12` of whatever kind. */
  ids?: readonly string[];
  /** Is part of a reason, in capitals or not. */
  reason?: string;
  /** Failed at this time or later. */
  since?: Date;
  /** Failed at this time or earlier. */
  until?: Date;
}

export interface ReadOptions {
  filter: DeadLetterFilter;
  /** Dead letters at most; default: all there are. */
  limit?: number;
  /** Told of a job that is not JSON, which somebody wrote past BullMQ. */
  onUnreadable?: (id: string) => void;
}

/** Jobs of a queue that are read at once; each may hold a megabyte, and a foreign one more. */
const PAGE = 8;

/**
 * Reads dead letters, the newest first, a few at a time. The names of all are taken at the start:
 * what fails from then on is left out, and what is retried or discarded meanwhile is passed over.
 */
export async function* readDeadLetters(
  queues: EventQueues,
  { filter, limit = Infinity, onUnreadable }: ReadOptions,
): AsyncGenerator<DeadLetter> {
  const kinds = EVENT_KINDS.filter((kind) => filter.kind === undefined || kind === filter.kind);
  const sources = kinds.map((kind) => matching(queues[kind], kind, filter, onUnreadable));
  const heads = await Promise.all(sources.map((source) => source.next()));
  for (let count = 0; count < limit; count++) {
    let newest = -1;
    heads.forEach((head, index) => {
      const best = heads[newest];
      if (!head.done && (!best || best.done || head.value.failedAt > best.value.failedAt)) {
        newest = index;
      }
    });
    const head = heads[newest];
    const source = sources[newest];
    if (!head || head.done || !source) return;
    yield head.value;
    heads[newest] = await source.next();
  }
}

async function* matching(
  queue: EventQueue,
  kind: EventKind,
  filter: DeadLetterFilter,
  onUnreadable: ReadOptions['onUnreadable'],
): AsyncGenerator<DeadLetter, undefined> {
  const text = filter.reason?.toLowerCase();
  const says = (reason: string) => text === undefined || reason.toLowerCase().includes(text);
  for await (const job of failedJobs(queue, kind, filter.ids, onUnreadable)) {
    const letter = toDeadLetter(kind, job);
    if (filter.until && letter.failedAt > filter.until) continue;
    if (filter.since && letter.failedAt < filter.since) {
      if (filter.ids) continue;
      return; // so are all that follow
    }
    if (says(letter.reason) || letter.events.some(({ reason }) => says(reason))) yield letter;
  }
}

async function* failedJobs(
  queue: EventQueue,
  kind: EventKind,
  wanted: readonly string[] | undefined,
  onUnreadable: ReadOptions['onUnreadable'],
): AsyncGenerator<EventJob> {
  const ids = wanted ? namesWithin(kind, wanted) : await queue.getRanges(['failed'], 0, -1); // the newest come first
  for (let start = 0; start < ids.length; start += PAGE) {
    const page = ids.slice(start, start + PAGE);
    const jobs = await Promise.all(
      page.map(async (id) => {
        const job = await readJob(queue, id, () => onUnreadable?.(`${kind}/${id}`));
        return job && (await job.isFailed()) ? job : undefined;
      }),
    );
    for (const job of jobs) if (job) yield job;
  }
}

function namesWithin(kind: EventKind, names: readonly string[]): string[] {
  return names.flatMap((name) => {
    const slash = name.indexOf('/');
    if (slash < 0) return name;
    return name.slice(0, slash) === kind ? name.slice(slash + 1) : [];
  });
}
