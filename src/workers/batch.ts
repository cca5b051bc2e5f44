import type { ProducerLedger } from '../queues/envelope.ts';
import type { EventList } from '../queues/eventList.ts';

/** Events that are written together, as a writer's statement takes them. */
export interface Batch {
  /** JSON array of the events. */
  events: string;
  /** The places, from 1, at which the events of a job begin. */
  starts: number[];
  rows: number;
  /** JSON array: of each job, its producer's counts and how many events it has. */
  jobs: string;
}

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

export const rowsOf = (pieces: readonly Piece[]): number =>
  pieces.reduce((sum, { from, to }) => sum + to - from, 0);

export function toBatch(pieces: readonly Piece[]): Batch {
  let next = 1;
  const starts = pieces.map(({ from, to }) => {
    const start = next;
    next += to - from;
    return start;
  });
  return {
    events: arrayOf(pieces.map(({ events, from, to }) => events.json(from, to))),
    starts,
    rows: next - 1,
    jobs: JSON.stringify(
      pieces.map(({ producer, from, to }) => ({ ...producer, events: to - from })),
    ),
  };
}

/** A JSON array of texts, in one piece: one of several would be copied once more to be sent. */
function arrayOf(texts: string[]): string {
  const pieces = ['['];
  for (const text of texts) pieces.push(text, ',');
  pieces[pieces.length - 1] = ']'; // in place of the last comma
  return pieces.join('');
}
