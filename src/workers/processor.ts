import { UnrecoverableError, WaitingError } from 'bullmq';

import { InvalidEventError, UnavailableError } from '../errors.ts';
import type { EventJob, JobResult } from '../queues/backend.ts';
import { QUEUES, type EventKind } from '../queues/catalogue.ts';
import {
  MAX_EVENTS,
  openEnvelope,
  type Envelope,
  type EventReason,
  type OpenedEnvelope,
} from '../queues/envelope.ts';
import type { EventList } from '../queues/eventList.ts';
import { openedOf } from '../queues/envelopeWorker.ts';
import type { BatchWriter } from './batchWriter.ts';
import type { DeadLetterCause, WorkerHooks } from './hooks.ts';
import type { Verdict } from './submission.ts';

/** An event that stays in its job, and why. `isFinal` if no retry can help it. */
interface Remainder {
  event: unknown;
  reason: string;
  cause: DeadLetterCause;
  isFinal: boolean;
}

/** Fails a job for good. BullMQ tells of it when the job is a dead letter, and not before. */
export class DeadLetterError extends UnrecoverableError {
  readonly causes: Parameters<NonNullable<WorkerHooks['onDeadLetter']>>[1];

  constructor(message: string, causes: DeadLetterError['causes']) {
    super(message);
    this.stack = message; // where it was thrown says nothing of the data that is at fault
    this.causes = causes;
  }
}

/** The greatest `integer` of PostgreSQL, where a queue may live. */
const UNLIMITED = 2 ** 31 - 1;

/**
 * Bytes of events in a completed job that is kept to be looked at, as the catalogue says. A larger
 * one goes at once: a drained queue would fill Redis with what are rows by now.
 */
const MAX_KEPT_BYTES = 128 * 1024;

/**
 * Makes the processor of one kind: open the envelope, hand the events to the writer, classify
 * what came back. A job completes when all of its events are committed. What is not stays in the
 * job, alone; the job is tried again if any of it may yet succeed, and is a dead letter otherwise.
 *
 * @param attempts - attempts at most while a reference is unknown
 */
export function createProcessor(kind: EventKind, writer: BatchWriter, attempts: number) {
  return async function process(job: EventJob, token?: string): Promise<JobResult> {
    // Whatever the producer (perhaps a foreign one) put in the job: an error that is nobody's
    // fault, such as the queue's own server failing to take a completion, never makes a dead
    // letter. What does is decided below, and said with a DeadLetterError.
    job.opts.attempts = UNLIMITED;
    job.opts.backoff = { type: 'exponential', delay: QUEUES[kind].backoffMs };
    const { valid, refused, producer } = openOrFail(kind, job);
    let remainders: Remainder[];
    try {
      const verdicts = await writer.submit(valid, producer, job.id);
      remainders = verdicts.flatMap((verdict, index) => remainderOf(valid, index, verdict));
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      // The process is stopping while PostgreSQL is away: the job goes back as it came.
      await job.moveToWait(token);
      throw new WaitingError();
    }
    remainders.push(
      ...refused.map((one) => ({ ...one, cause: 'invalid' as const, isFinal: true })),
    );
    if (remainders.length === 0) {
      if (valid.bytes > MAX_KEPT_BYTES) job.opts.removeOnComplete = true;
      return { committed: valid.length };
    }
    const envelope = { v: 1 as const, ...(producer && { producer }) };
    return keepRemainders(job, envelope, remainders, valid.length + refused.length, attempts);
  };
}

const NONE: readonly Remainder[] = [];

function remainderOf(events: EventList, index: number, verdict: Verdict): readonly Remainder[] {
  if (verdict.state === 'committed') return NONE;
  const event = events.eventAt(index);
  switch (verdict.state) {
    case 'refused':
      return [{ event, reason: verdict.reason, cause: 'refused', isFinal: true }];
    case 'waiting':
      return [
        {
          event,
          reason: `${verdict.field}: unknown id ${JSON.stringify(verdict.reference)}`,
          cause: 'unknown_reference',
          isFinal: false,
        },
      ];
  }
}

function openOrFail(kind: EventKind, job: EventJob): OpenedEnvelope {
  const opened = openedOf(job);
  if (opened) return opened;
  const count = (job.data as Partial<Envelope> | null)?.events?.length ?? 0;
  if (count > MAX_EVENTS) {
    throw new UnrecoverableError(`events: ${count} in one job, at most ${MAX_EVENTS} are allowed`);
  }
  try {
    return openEnvelope(kind, job.data);
  } catch (error) {
    if (error instanceof InvalidEventError) {
      throw new DeadLetterError(error.message, { unreadable: 1 });
    }
    throw error;
  }
}

/**
 * Shrinks the job to what remains and fails it. Killed in between, the job is done again from the
 * data it then has: in full, which commits nothing twice, or shrunk, which loses nothing.
 */
async function keepRemainders(
  job: EventJob,
  envelope: Omit<Envelope, 'events'>,
  remainders: Remainder[],
  total: number,
  attempts: number,
): Promise<never> {
  const isLastAttempt = job.attemptsMade + 1 >= attempts;
  const isDeadLetter = isLastAttempt || remainders.every(({ isFinal }) => isFinal);
  if (remainders.length < total || isDeadLetter) {
    const events = remainders.map(({ event }) => keepNumbers(event));
    const reasons = isDeadLetter && { reasons: groupReasons(remainders) };
    // What is nested too deeply to be written again stays in the job with the rest, which harms
    // nobody: a retry finds the others' rows.
    if (!events.includes(undefined)) await job.updateData({ ...envelope, events, ...reasons });
  }
  const message = describe(remainders);
  throw isDeadLetter ? new DeadLetterError(message, countCauses(remainders)) : new Error(message);
}

/** Characters of a reason that are kept for each event. */
const MAX_REASON_LENGTH = 1000;

function groupReasons(remainders: Remainder[]): EventReason[] {
  const groups = new Map<string, EventReason>();
  remainders.forEach(({ reason }, index) => {
    // Half a character, which a cut may leave, would not be taken by PostgreSQL.
    const text = reason.slice(0, MAX_REASON_LENGTH).toWellFormed();
    const group = groups.get(text);
    if (group) group.events.push(index);
    else groups.set(text, { reason: text, events: [index] });
  });
  return [...groups.values()];
}

function countCauses(remainders: Remainder[]): DeadLetterError['causes'] {
  const counts: DeadLetterError['causes'] = {};
  for (const { cause } of remainders) counts[cause] = (counts[cause] ?? 0) + 1;
  return counts;
}

/**
 * `1e999` in a job's text is Infinity once parsed, and JSON would make it `null`, which is a right
 * value of many fields: the retried event would pass with its number gone. As a string it stays
 * both readable and refused.
 */
function keepNumbers(event: unknown): unknown {
  try {
    return JSON.parse(
      JSON.stringify(event, (_, value: unknown) =>
        typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
      ),
    );
  } catch {
    return undefined; // JSON.stringify recurses, and the stack has an end
  }
}

/** Reasons that a job's failure spells out; the events themselves stay in the job. */
const MAX_REASONS = 10;

function describe(remainders: Remainder[]): string {
  const reasons = [...new Set(remainders.map(({ reason }) => reason))];
  const shown = reasons.slice(0, MAX_REASONS).join('; ');
  const more = reasons.length > MAX_REASONS ? `; and ${reasons.length - MAX_REASONS} more` : '';
  return `${remainders.length} of the job's events not stored: ${shown}${more}`;
}
