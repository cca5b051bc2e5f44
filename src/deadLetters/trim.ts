import type { PrismaClient } from '../database/client.ts';
import type { EventQueue } from '../queues/backend.ts';
import { EVENT_KINDS, type EventKind } from '../queues/catalogue.ts';
import type { EventQueues } from '../queues/eventQueues.ts';
import { readJob } from '../queues/readJob.ts';
import { toDeadLetter, type DeadLetter } from './deadLetter.ts';
import { discardDeadLetters } from './discard.ts';

/** How many dead letters a queue keeps, and for how long. They are the only copy of what they hold. */
export const DEAD_LETTERS_KEPT = { jobs: 100_000, ageMs: 90 * 24 * 60 * 60 * 1000 };

/** Jobs that are read at once; each may hold a megabyte, and a foreign one more. */
const PAGE = 8;

/** What went. */
export interface Trim {
  jobs: number;
  events: number;
}

export interface TrimOptions {
  kept?: typeof DEAD_LETTERS_KEPT;
  /** Ends it, with the signal's reason, between two pages. */
  signal?: AbortSignal;
  /** Told after each page what went so far. */
  onProgress?: (sofar: Readonly<Trim>) => unknown;
  /** What went in a run that did not end: it is in the result. Default: nothing. */
  resume?: Readonly<Trim>;
}

/**
 * Discards the oldest dead letters of each queue, down to what is kept, and counts their events, so
 * that an audit still finds them. A job that is not JSON, which nobody can count, stays.
 *
 * @example const { jobs, events } = await trimDeadLetters(prisma, queues);
 */
export async function trimDeadLetters(
  prisma: PrismaClient,
  queues: EventQueues,
  { kept = DEAD_LETTERS_KEPT, signal, onProgress, resume }: TrimOptions = {},
): Promise<Trim> {
  const gone: Trim = { jobs: 0, events: 0, ...resume };
  for (const kind of EVENT_KINDS) {
    for await (const letters of surplus(queues[kind], kind, kept)) {
      signal?.throwIfAborted();
      const discarded = await discardDeadLetters(prisma, queues, letters);
      gone.jobs += discarded.length;
      gone.events += discarded.reduce((sum, { events }) => sum + events.length, 0);
      await onProgress?.(gone);
    }
  }
  return gone;
}

/** The dead letters of a queue that are too many or too old, the oldest first, a page at a time. */
async function* surplus(
  queue: EventQueue,
  kind: EventKind,
  { jobs, ageMs }: typeof DEAD_LETTERS_KEPT,
): AsyncGenerator<DeadLetter[]> {
  const ids = await queue.getRanges(['failed'], 0, -1, true);
  const tooMany = ids.length - jobs;
  const before = new Date(Date.now() - ageMs);
  for (let start = 0; start < ids.length; start += PAGE) {
    const page = ids.slice(start, start + PAGE);
    const read = await Promise.all(page.map((id) => readJob(queue, id)));
    const letters = read.map((job) => job && toDeadLetter(kind, job));
    const isDue = (letter: DeadLetter | undefined, index: number) =>
      start + index < tooMany || (letter !== undefined && letter.failedAt < before);
    const due = letters.filter((letter, index) => letter && isDue(letter, index)) as DeadLetter[];
    if (due.length > 0) yield due;
    // What follows one that stays is younger. One that cannot be read tells nothing.
    if (letters.some((letter, index) => letter && !isDue(letter, index))) return;
  }
}
