import { AggregatorRegistry, Counter, Gauge, Registry } from 'prom-client';

import type { LedgerFigure } from '../ledger/ledger.ts';
import type { Sight } from './watch.ts';
import { countWorkers } from './workers.ts';

const EVENTS: Readonly<Record<LedgerFigure, string>> = {
  accepted: 'Events that producers accepted, as the jobs that arrived told',
  dropped: 'Accepted events that producers lost for want of room or time',
  committed: 'Events whose rows were inserted',
  duplicates: 'Events that were found to be stored already',
  discarded: 'Events of dead letters that were given up on purpose',
};

export const EXPOSITION_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

/** The house in Prometheus' text format: what the workers measured, and what the board sees. */
export async function expose(sight: Sight): Promise<string> {
  const own = new Registry();
  const gauge = <L extends string>(name: string, help: string, labelNames: L[] = []) =>
    new Gauge({ name, help, labelNames, registers: [own] });

  const up = gauge('annals_up', 'Whether a part is as it should be, as /readyz tells', ['part']);
  for (const [part, fault] of Object.entries(sight.checks))
    up.set({ part }, fault === null ? 1 : 0);
  gauge('annals_workers', 'Worker processes that reported in the last 5 s').set(
    countWorkers(sight),
  );

  gauge('annals_spool_bytes', "Bytes that producers on the board's machine have put aside").set(
    sight.spoolBytes,
  );

  // A counter that is not read yet is not there: one that read 0 would seem to have been reset, and
  // all that it ever counted to have happened since.
  for (const [figure, help] of Object.entries(EVENTS) as [LedgerFigure, string][]) {
    const name = `annals_events_${figure}_total`;
    const counter = new Counter({ name, help, labelNames: ['kind'], registers: [own] });
    for (const [kind, figures] of Object.entries(sight.totals ?? {})) {
      counter.inc({ kind }, figures[figure]);
    }
  }
  const letters = gauge(
    'annals_dead_letter_events',
    'Events that are dead letters now; jobs, in a queue that holds no events',
    ['queue'],
  );
  for (const { name: queue } of sight.queues) letters.set({ queue }, 0);
  for (const { queue, count } of sight.deadLetters.groups) letters.inc({ queue }, count);

  const jobs = gauge('annals_queue_jobs', 'Jobs of a queue by state', ['queue', 'state']);
  const oldest = gauge(
    'annals_queue_oldest_job_age_seconds',
    'Age of the oldest job that waits or is active; 0 without one',
    ['queue'],
  );
  const paused = gauge('annals_queue_paused', 'Whether a queue is paused', ['queue']);
  for (const { name: queue, waiting, active, delayed, deadLetters, ...rest } of sight.queues) {
    const states = { waiting, active, delayed, dead_letter: deadLetters };
    for (const [state, count] of Object.entries(states)) jobs.set({ queue, state }, count);
    oldest.set({ queue }, (rest.oldestMs ?? 0) / 1000);
    paused.set({ queue }, rest.isPaused ? 1 : 0);
  }

  if (sight.recount) {
    const { agents, checked, drift, finishedAt } = sight.recount;
    const last = 'of the last check of session counts';
    gauge('annals_session_counts_checked_agents', `Agents ${last}`).set(checked);
    gauge('annals_session_counts_drifted_agents', `Agents whose figure was wrong ${last}`).set(
      agents,
    );
    gauge(
      'annals_session_counts_drift_sessions',
      `Sessions by which figures were wrong ${last}`,
    ).set(drift);
    gauge('annals_session_counts_finished_timestamp_seconds', `End ${last}`).set(finishedAt / 1000);
  }

  const fraction = gauge('annals_backfill_fraction', 'Done of the latest backfill, 0 to 1', [
    'table',
    'status',
  ]);
  const rows = gauge('annals_backfill_rows', 'Rows of the latest backfill', ['table', 'state']);
  const held = gauge('annals_backfill_held', 'What holds a backfill back', ['table', 'reason']);
  for (const { table, status, ...run } of sight.backfills) {
    fraction.set({ table, status }, run.fraction);
    const states = { passed: run.passed, changed: run.changed, quarantined: run.quarantined };
    for (const [state, count] of Object.entries(states)) rows.set({ table, state }, count);
    // Each figure in the reason would make a series of its own.
    const reason = run.reason?.replaceAll(/\d+/g, 'N');
    if (status === 'running' && reason) held.set({ table, reason }, 1);
  }

  const workers = AggregatorRegistry.aggregate(sight.reports.map(({ metrics }) => metrics));
  return `${await workers.metrics()}\n${await own.metrics()}`;
}
