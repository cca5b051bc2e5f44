import type { ProducerLedger } from '../queues/envelope.ts';
import type { EventList } from '../queues/eventList.ts';

/** What a batch takes of a job: its events from `from` to before `to`. */
export interface Piece {
  events: EventList;
  from: number;
  to: number;
  /** What the job says of its producer. */
  producer: ProducerLedger;
  /** The job's id, where it is known. */
  job?: string | undefined;
}

/** Events that are written together. */
export type Batch = readonly Piece[];

export const rowsOf = (batch: Batch): number =>
  batch.reduce((sum, { from, to }) => sum + to - from, 0);

/** JSON array of the events. */
export const eventsOf = (batch: Batch): string => {
  const pieces = ['['];
  for (const { events, from, to } of batch) pieces.push(events.json(from, to), ',');
  pieces[pieces.length - 1] = ']'; // in place of the last comma
  return pieces.join(''); // in one piece: one of several would be copied once more to be sent
};

/** The places, from 1, at which the events of a job begin. */
export function startsOf(batch: Batch): number[] {
  let next = 1;
  return batch.map(({ from, to }) => {
    const start = next;
    next += to - from;
    return start;
  });
}

/** JSON array: of each job, its producer's counts and how many events it has. */
export const jobsOf = (batch: Batch): string =>
  JSON.stringify(batch.map(({ producer, from, to }) => ({ ...producer, events: to - from })));
