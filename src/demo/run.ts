import { setTimeout as sleep } from 'node:timers/promises';

import type { Closer } from '../closer.ts';
import { Connection } from '../database/connection.ts';
import { UnavailableError } from '../errors.ts';
import { openQueue, type EventQueue } from '../queues/backend.ts';
import { EVENT_KINDS, type EventKind } from '../queues/catalogue.ts';
import type { Board } from '../board/board.ts';
import { audit, type Query } from './audit.ts';
import { checkBoard } from './board.ts';
import { Crew, type CrewSettings } from './crew.ts';
import type { Ground } from './ground.ts';
import type { Claim } from './ledger.ts';
import { Progress } from './progress.ts';
import type { Report } from './report.ts';

type Queues = Record<EventKind, EventQueue>;

const LOOK_EVERY_MS = 200;

/** Milliseconds without any progress after which no more is expected; longer than any back-off. */
const PATIENCE_MS = 60_000;

/**
 * Lets runtimes and workers run until the queues are empty, and audits what they left behind.
 *
 * @returns the report, and how many times a worker met an event before its parent
 * @throws when a process fails, nothing moves any more, or `signal` aborts
 */
export async function run(
  settings: CrewSettings,
  ground: Ground,
  closer: Closer,
  signal: AbortSignal,
  board?: Board,
): Promise<{ report: Report; waited: number }> {
  const queues = openQueues(ground, closer);
  const crew = new Crew(settings, ground.env, closer, signal);
  const progress = new Progress();
  const show = (jobs: Record<EventKind, number>) => {
    const { emitted, delivered, committed, duplicates, perSecond } = crew.figures();
    const queued = Math.max(0, delivered - committed - duplicates);
    if (emitted === 0) return;
    progress.show({ total: settings.events, emitted, queued, committed, perSecond, jobs });
  };
  let claim: Claim;
  try {
    claim = await Promise.race([crew.failure, untilDrained(crew, queues, show, signal)]);
    await crew.stopWorkers();
    show(await countJobs(queues, ...UNSETTLED));
  } finally {
    progress.end();
  }

  const { duplicates: duplicatesIgnored, waiting, perSecond } = crew.figures();
  const deadLetters = total(await countJobs(queues, 'failed'));
  const jobsLeft = total(await countJobs(queues, ...UNSETTLED));
  const client = new Connection({ connectionString: ground.databaseUrl });
  await client.connect();
  closer.add('audit', () => client.end());
  const query: Query = async (sql, params) => (await client.query(sql, params)).rows;
  const findings = { duplicatesIgnored, deadLetters, jobsLeft };
  const { checks, committed } = await audit(query, claim, findings);
  if (board) checks.push(...(await checkBoard(board, query, queues)));

  const report: Report = {
    ok: checks.every(({ ok }) => ok),
    queueBackend: ground.queue.kind,
    database: ground.database,
    emitted: claim.emitted,
    committed,
    duplicates: claim.duplicates,
    deadLetters,
    lost: claim.emitted - claim.duplicates - committed,
    eventsPerSecond: Math.round(perSecond),
    checks,
  };
  return { report, waited: waiting };
}

/**
 * Resolves when the runtimes are done and nothing is left in the queues, or nothing moves any
 * more: what is left there then, the audit tells.
 */
async function untilDrained(
  crew: Crew,
  queues: Queues,
  show: (jobs: Record<EventKind, number>) => void,
  signal: AbortSignal,
): Promise<Claim> {
  let moved = { events: 0, at: performance.now() };
  for (;;) {
    // Asked before the queues are: what a runtime says at its end, the queues have.
    const claim = crew.claim();
    const jobs = await countJobs(queues, ...UNSETTLED);
    show(jobs);
    if (claim && total(jobs) === 0) return claim;
    const { emitted, committed, duplicates } = crew.figures();
    if (emitted + committed + duplicates > moved.events) {
      moved = { events: emitted + committed + duplicates, at: performance.now() };
    }
    if (performance.now() > moved.at + PATIENCE_MS) {
      if (claim) return claim;
      throw new UnavailableError(
        `nothing has moved for ${PATIENCE_MS / 1000} s: ${emitted} events are emitted, ${committed} committed`,
      );
    }
    await sleep(LOOK_EVERY_MS, undefined, { signal });
  }
}

function openQueues({ queue }: Ground, closer: Closer): Queues {
  const queues = Object.fromEntries(
    EVENT_KINDS.map((kind) => [kind, openQueue(queue, kind)]),
  ) as Queues;
  const all = Object.values(queues);
  for (const one of all) one.on('error', () => {}); // what matters rejects the calls
  closer.add(
    'queues',
    () => Promise.all(all.map((one) => one.close())),
    () => Promise.all(all.map((one) => one.disconnect())),
  );
  return queues;
}

const UNSETTLED = ['waiting', 'active', 'delayed', 'prioritized'] as const;

async function countJobs(
  queues: Queues,
  ...states: ((typeof UNSETTLED)[number] | 'failed')[]
): Promise<Record<EventKind, number>> {
  const counts = await Promise.all(
    EVENT_KINDS.map(async (kind) => {
      const ofKind = await queues[kind].getJobCounts(...states);
      return [kind, Object.values(ofKind).reduce((sum, count) => sum + count, 0)];
    }),
  );
  return Object.fromEntries(counts) as Record<EventKind, number>;
}

function total(jobs: Record<EventKind, number>): number {
  return Object.values(jobs).reduce((sum, count) => sum + count, 0);
}
