import {
  Counter,
  Histogram,
  Registry,
  type MetricObjectWithValues,
  type MetricValue,
} from 'prom-client';

import { EVENT_KINDS } from '../queues/catalogue.ts';
import { DEAD_LETTER_CAUSES, type WorkerHooks } from '../workers/hooks.ts';
import { ManyHistogram } from './manyHistogram.ts';

/** What a process has measured, as it travels to the board. */
export type MetricsSnapshot = MetricObjectWithValues<MetricValue<string>>[];

export interface WorkerMetrics {
  /** What `startWorkers` takes. */
  hooks: WorkerHooks;
  /** All that was measured since the start. */
  snapshot: () => Promise<MetricsSnapshot>;
}

/** Names that the board's overview reads back from snapshots. */
export const METRIC = {
  deadLettered: 'annals_events_dead_lettered_total',
  batch: 'annals_batch_events',
  write: 'annals_write_seconds',
  lag: 'annals_lag_seconds',
} as const;

/** Upper ends in seconds: from a write that nobody waits for to one that holds everything up. */
const WRITE_SECONDS = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Upper ends in seconds: from "at once" to what was kept through a day of outage. */
const LAG_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86_400];

/** Seconds beyond which a histogram tells no more than that they were exceeded. */
export const LONGEST = { write: WRITE_SECONDS.at(-1) as number, lag: LAG_SECONDS.at(-1) as number };

const BATCH_EVENTS = [1, 3, 10, 30, 100, 300, 1000, 2000, 3000, 5000, 10_000, 20_000];

/**
 * Measures what workers do, through the hooks that these take; it knows nothing of queues or tables.
 * How many events are stored is not measured but counted, in the ledger.
 *
 * @param worker - label of everything measured, such as `web-1:4711:8d3f0a`
 *
 * @example
 * const metrics = createWorkerMetrics('web-1:4711:8d3f0a');
 * await startWorkers({ ...options, hooks: metrics.hooks });
 */
export function createWorkerMetrics(worker: string): WorkerMetrics {
  const registry = new Registry();
  registry.setDefaultLabels({ worker });
  const registers = [registry];
  const histogram = (name: string, help: string, buckets: number[]) =>
    new Histogram({ name, help, labelNames: ['kind'], buckets, registers });

  const deadLettered = new Counter({
    name: METRIC.deadLettered,
    help: 'Events that became dead letters; one that is retried in vain counts again',
    labelNames: ['kind', 'cause'],
    registers,
  });
  // A series that first appears at 7 has not increased, as far as Prometheus can tell.
  for (const kind of EVENT_KINDS) {
    for (const cause of DEAD_LETTER_CAUSES) deadLettered.inc({ kind, cause }, 0);
  }
  const batch = histogram(METRIC.batch, 'Events in one write', BATCH_EVENTS);
  const write = histogram(METRIC.write, 'Seconds that a write took', WRITE_SECONDS);
  const lag = new ManyHistogram({
    name: METRIC.lag,
    help: 'Seconds from occurrence to the commit that stored an event or found it stored',
    buckets: LAG_SECONDS,
    registry,
  });

  return {
    hooks: {
      onBatch: (kind, { rows, milliseconds, occurredAt }) => {
        batch.observe({ kind }, rows);
        write.observe({ kind }, milliseconds / 1000);
        const now = Date.now();
        // An agent whose clock is ahead would have its events stored before they occur.
        lag.observe(
          kind,
          occurredAt.map((time) => Math.max(0, now - time) / 1000),
        );
      },
      onDeadLetter: (kind, causes) => {
        for (const [cause, events] of Object.entries(causes)) {
          deadLettered.inc({ kind, cause }, events);
        }
      },
    },
    snapshot: () => registry.getMetricsAsJSON(),
  };
}
