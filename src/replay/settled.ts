import { setTimeout as sleep } from 'node:timers/promises';

import type { PrismaClient } from '../database/client.ts';
import { classifyFault, serverMessage } from '../database/faults.ts';
import type { Logger } from '../logger.ts';
import type { EventQueue } from '../queues/backend.ts';
import { EVENT_KINDS, type EventKind } from '../queues/catalogue.ts';
import type { ReplayEvent } from './records.ts';

/** Where the rows of each kind are; a replay takes no metrics of agents. */
const ABSENT: Readonly<Record<EventKind, string>> = {
  'memory-access': absentFrom('MemoryAccess'),
  transition: absentFrom('StateTransition'),
  metrics: absentFrom('SessionMetric'),
  'session-event': absentFrom('SessionEvent'),
};

function absentFrom(table: string): string {
  return `SELECT x."id" FROM unnest($1::uuid[]) AS x ("id")
    WHERE NOT EXISTS (SELECT 1 FROM "${table}" t WHERE t."id" = x."id")`;
}

export interface SettleOptions {
  prisma: PrismaClient;
  queues: Readonly<Record<EventKind, EventQueue>>;
  /** Milliseconds since 1970 at which the first of the events was emitted, by this process. */
  emittedSince: number;
  log: Logger;
  signal: AbortSignal;
  /** Told how many of the events are stored, at each look. */
  onProgress: (stored: number) => void;
}

/** What did not become a row, and why: the reasons of dead letters, by event. */
export interface Unsettled {
  deadLetters: Map<string, string>;
  /** Neither stored nor on any queue. */
  missing: string[];
}

const POLL_MS = 100;

/** Milliseconds without any progress after which it is said that, and why, we still wait. */
const SAY_SO_MS = 10_000;

/**
 * Waits until every event is a row, a dead letter or lost. It trusts rows, whoever wrote them; and
 * only of what has no row it asks the queues. Servers that are away are waited for.
 *
 * @throws the signal's reason when that is aborted
 */
export async function settled(
  events: readonly ReplayEvent[],
  { prisma, queues, emittedSince, log, signal, onProgress }: SettleOptions,
): Promise<Unsettled> {
  let open = events;
  let progressAt = Date.now();
  for (;;) {
    signal.throwIfAborted();
    let obstacle = 'jobs are waiting in the queues; are they paused?';
    try {
      // First the queues, then the rows: whatever had left the queues is committed by now.
      const areIdle = await allIdle(queues);
      const before = open.length;
      open = await absent(prisma, open);
      onProgress(events.length - open.length);
      if (open.length === 0) return { deadLetters: new Map(), missing: [] };
      if (open.length < before) progressAt = Date.now();
      else {
        const deadLetters = await findDeadLetters(queues, open, emittedSince);
        if (areIdle || deadLetters.size === open.length) {
          const missing = open.map(({ event }) => event.id).filter((id) => !deadLetters.has(id));
          return { deadLetters, missing };
        }
      }
    } catch (error) {
      if (classifyFault(error) === 'data') throw error;
      obstacle = serverMessage(error);
    }
    if (Date.now() - progressAt > SAY_SO_MS) {
      log.warn({ waitingFor: open.length }, `nothing was stored for a while: ${obstacle}`);
      progressAt = Date.now();
    }
    await sleep(POLL_MS, undefined, { signal }).catch(() => {});
  }
}

/** Whether nothing can become of any event any more. */
async function allIdle(queues: SettleOptions['queues']): Promise<boolean> {
  const idle = await Promise.all(
    EVENT_KINDS.map(async (kind) => {
      // A paused queue counts no waiting jobs on PostgreSQL, whatever it holds.
      if (await queues[kind].isPaused()) return false;
      const states = ['waiting', 'active', 'delayed', 'prioritized'] as const;
      return (await queues[kind].getJobCountByTypes(...states)) === 0;
    }),
  );
  return idle.every(Boolean);
}

async function absent(
  prisma: PrismaClient,
  events: readonly ReplayEvent[],
): Promise<readonly ReplayEvent[]> {
  const ids = new Set<string>();
  for (const kind of EVENT_KINDS) {
    const ofKind = events.filter((event) => event.kind === kind).map(({ event }) => event.id);
    if (ofKind.length === 0) continue;
    const rows = await prisma.$queryRawUnsafe<{ id: string }[]>(ABSENT[kind], ofKind);
    for (const { id } of rows) ids.add(id);
  }
  return events.filter(({ event }) => ids.has(event.id));
}

/** Dead letters that are read at once; each holds up to a megabyte. */
const PAGE = 20;

/** Milliseconds that the clocks of workers may be behind ours. */
const CLOCK_SKEW_MS = 60_000;

/** Reasons of the jobs that failed with these events since they were emitted. */
async function findDeadLetters(
  queues: SettleOptions['queues'],
  events: readonly ReplayEvent[],
  emittedSince: number,
): Promise<Map<string, string>> {
  const ids = new Set(events.map(({ event }) => event.id));
  const found = new Map<string, string>();
  for (const kind of EVENT_KINDS) {
    for (let start = 0; ; start += PAGE) {
      const jobs = await queues[kind].getFailed(start, start + PAGE - 1); // the newest come first
      for (const { data, failedReason, timestamp } of jobs) {
        // An older job, of an earlier replay, says nothing about this one.
        if (timestamp < emittedSince || !Array.isArray(data?.events)) continue;
        for (const event of data.events) {
          const id = (event as { id?: unknown } | null)?.id;
          if (typeof id === 'string' && ids.has(id)) found.set(id, failedReason);
        }
      }
      const last = jobs.at(-1);
      if (!last || (last.finishedOn ?? 0) < emittedSince - CLOCK_SKEW_MS) break;
    }
  }
  return found;
}
