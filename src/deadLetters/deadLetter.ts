import { NO_PRODUCER } from '../ledger/ledger.ts';
import type { EventJob } from '../queues/backend.ts';
import type { EventKind } from '../queues/catalogue.ts';
import { PRODUCER_LEDGER, type Envelope, type ProducerLedger } from '../queues/envelope.ts';

/** A job that is not tried again by itself, and what it holds. */
export interface DeadLetter {
  /** Names it among those of all queues, such as `metrics/12`. */
  id: string;
  kind: EventKind;
  failedAt: Date;
  /** Attempts so far. */
  attempts: number;
  /** Why the job failed, in one text. */
  reason: string;
  events: { event: unknown; reason: string }[];
  producer: ProducerLedger;
  job: EventJob;
}

export function toDeadLetter(kind: EventKind, job: EventJob): DeadLetter {
  const reason = job.failedReason ?? '';
  const events = eventsOf(job.data).map((event) => ({ event, reason }));
  for (const group of reasonsOf(job.data)) {
    for (const index of group.events) {
      const found = events[index];
      if (found) found.reason = group.reason;
    }
  }
  return {
    id: `${kind}/${job.id}`,
    kind,
    failedAt: new Date(job.finishedOn ?? 0),
    attempts: job.attemptsMade,
    reason,
    events,
    producer: producerOf(job.data),
    job,
  };
}

/** The events of a job, which anybody may have written: what is no envelope counts as one. */
export function eventsOf(data: unknown): unknown[] {
  const events = (data as Partial<Envelope> | null | undefined)?.events;
  return Array.isArray(events) ? events : [data];
}

/** What a job says of its producer. */
export function producerOf(data: unknown): ProducerLedger {
  const producer = (data as Partial<Envelope> | null | undefined)?.producer;
  return PRODUCER_LEDGER.safeParse(producer).data ?? NO_PRODUCER;
}

function reasonsOf(data: unknown): { reason: string; events: number[] }[] {
  const reasons: unknown = (data as Partial<Envelope> | null | undefined)?.reasons;
  if (!Array.isArray(reasons)) return [];
  return reasons.filter(
    (one: Partial<Record<'reason' | 'events', unknown>> | null) =>
      typeof one?.reason === 'string' && Array.isArray(one.events),
  );
}
