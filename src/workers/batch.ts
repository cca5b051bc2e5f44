import type { ProducerLedger } from '../queues/envelope.ts';
import type { EncodedEvent } from '../queues/events.ts';

/** Events that are written together, as a writer's statement takes them. */
export interface Batch {
  /** JSON array of the events. */
  events: string;
  /** The places, from 1, at which the events of a job begin. */
  starts: number[];
  /** JSON array: of each job, its producer's counts and how many events it has. */
  jobs: string;
}

export interface BatchItem {
  event: EncodedEvent;
  /** What its job says of its producer; all events of a job share one object. */
  producer: ProducerLedger;
}

export function toBatch(items: readonly BatchItem[]): Batch {
  const starts: number[] = [];
  const jobs: (ProducerLedger & { events: number })[] = [];
  let previous: ProducerLedger | undefined;
  items.forEach(({ producer }, index) => {
    if (producer !== previous) {
      starts.push(index + 1);
      jobs.push({ ...producer, events: 0 });
      previous = producer;
    }
    const job = jobs.at(-1);
    if (job) job.events++;
  });
  return {
    events: `[${items.map(({ event }) => event.json).join(',')}]`,
    starts,
    jobs: JSON.stringify(jobs),
  };
}
