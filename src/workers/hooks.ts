import type { EventKind } from '../queues/catalogue.ts';

/** A write that has committed. */
export interface WrittenBatch {
  /** Events in it. */
  rows: number;
  /** Jobs that it joins, and the id of the first. */
  jobs: number;
  job?: string | undefined;
  /** From the statement to the commit's answer, conflicts that were tried again included. */
  milliseconds: number;
  /** Milliseconds since 1970 of each event that is stored now, newly or already. */
  occurredAt: number[];
}

/** Why an event is a dead letter. */
export const DEAD_LETTER_CAUSES = [
  /** Its parent did not come. */
  'unknown_reference',
  /** The database cannot take it. */
  'refused',
  /** It breaks its schema. */
  'invalid',
  /** Its job is no envelope. */
  'unreadable',
] as const;

export type DeadLetterCause = (typeof DEAD_LETTER_CAUSES)[number];

/** Told of what workers do. They are called between writes: they take microseconds and never throw. */
export interface WorkerHooks {
  onBatch?(kind: EventKind, batch: WrittenBatch): void;
  /** A job has become a dead letter; events of it by cause. */
  onDeadLetter?(kind: EventKind, causes: Partial<Record<DeadLetterCause, number>>): void;
}
