import { setTimeout as sleep } from 'node:timers/promises';

import type { Closer } from '../closer.ts';
import type { Config } from '../config.ts';
import { createPrismaClient, type PrismaClient } from '../database/client.ts';
import type { Logger } from '../logger.ts';
import { createProducer } from '../producers/producer.ts';
import type { QueueLocation } from '../queues/backend.ts';
import { openEventQueues } from '../queues/eventQueues.ts';
import { recountSessions } from '../services/sessionCounts.ts';
import { startWorkers } from '../workers/runtime.ts';
import { addUp, agree, FirstSeen, noFigures, storedFigures, type Figures } from './figures.ts';
import { writeAgent, writeParents } from './parents.ts';
import type { Naming } from './records.ts';
import { settled } from './settled.ts';
import { chunksOf, surveyFile } from './survey.ts';

export interface ReplayOptions {
  file: string;
  naming: Naming;
  databaseUrl: string;
  queue: QueueLocation;
  config: Config;
  log: Logger;
  /** Is told how to close what the replay opens. */
  closer: Closer;
  /** Aborted to stop before the end; what is stored stays, and another replay completes it. */
  signal: AbortSignal;
  /** Told how many events of how many are stored. */
  onProgress?: (stored: number, total: number) => void;
}

export type ReplayFigures = Figures & { agents: number; totalSessions: number };

/** Figures as counted in the tables when all was done, of what the file names and nothing else. */
export type ReplayReport = ReplayFigures & {
  /** Whether every event is a row and every figure is as expected. */
  ok: boolean;
  /** As counted from the file; but `totalSessions` as counted from all sessions of the agent. */
  expected: ReplayFigures;
  /** Events that no table took, and the reasons. */
  deadLetters: number;
  deadLetterReasons: string[];
  /** Events that are neither stored nor on a queue. */
  missing: number;
  /** Look-ups whose arguments do not say of what, and of which there is no memory access. */
  callsWithoutMemory: number;
};

/**
 * Stores recorded conversations, on the way that live events take: producer, queue, workers. It
 * reads the file three times and holds some conversations and all their names at most: first it
 * checks and counts, and a wrong line ends it there; then it writes parents and emits events; then
 * it waits until the events are rows and counts these.
 *
 * Every id is derived from the file, so a replay of the same file changes nothing, and one that
 * was interrupted is completed.
 *
 * @throws {InvalidFileError} with the line's number, before anything is written
 */
export async function replay(options: ReplayOptions): Promise<ReplayReport> {
  const { file, naming, signal, onProgress } = options;
  const survey = await surveyFile(file, naming, signal);
  const { prisma, producer, queues } = await open(options);

  const emittedSince = Date.now();
  await writeAgent(prisma, naming);
  let firstSeen = new FirstSeen();
  for await (const records of chunksOf(file, naming)) {
    signal.throwIfAborted();
    await writeParents(prisma, records, firstSeen.of(records), survey.spans, naming);
    for (const { kind, event } of records.flatMap(({ events }) => events)) {
      await orAborted(producer.ready(), signal);
      producer.emit(kind, event);
    }
  }
  await orAborted(producer.flush(), signal);
  // While they are in the spool they are not lost, but neither rows nor jobs.
  while (producer.stats().spooled > 0) await orAborted(sleep(100), signal);

  const stored = noFigures();
  const deadLetters: string[] = [];
  let missing = 0;
  let done = 0;
  firstSeen = new FirstSeen();
  for await (const records of chunksOf(file, naming)) {
    const events = records.flatMap(({ events }) => events);
    const unsettled = await settled(events, {
      prisma,
      queues,
      emittedSince,
      log: options.log,
      signal,
      onProgress: (stored) => onProgress?.(done + stored, survey.events),
    });
    done += events.length;
    deadLetters.push(...unsettled.deadLetters.values());
    missing += unsettled.missing.length;
    addUp(stored, await storedFigures(prisma, records, firstSeen.of(records)));
  }
  await recountSessions(prisma);
  const { agents, totalSessions, countedSessions } = await agentFigures(prisma, naming.agentId);

  const figures = { ...stored, agents, totalSessions };
  const expected = { ...survey.figures, agents: 1, totalSessions: countedSessions };
  return {
    ...figures,
    ok: missing === 0 && deadLetters.length === 0 && agree(figures, expected),
    expected,
    deadLetters: deadLetters.length,
    deadLetterReasons: [...new Set(deadLetters)].slice(0, 10),
    missing,
    callsWithoutMemory: survey.callsWithoutMemory,
  };
}

/** Opens all that a replay needs, its own workers among it, and registers the closing. */
async function open({ databaseUrl, queue, config, log, closer }: ReplayOptions) {
  const prisma = createPrismaClient(databaseUrl, { poolSize: 4, applicationName: 'annals replay' });
  closer.add('database', () => prisma.$disconnect());

  const workers = await startWorkers({ databaseUrl, queue, config, log });
  closer.add('workers', () => workers.stop(config.ANNALS_SHUTDOWN_DEADLINE_MS));

  const queues = await openEventQueues(queue, closer);

  const producer = createProducer({
    queue,
    config,
    onError: (error) => log.debug({ reason: (error as Error).message }, 'the queue is away'),
  });
  closer.add('producer', () => producer.close());
  return { prisma, producer, queues };
}

async function agentFigures(prisma: PrismaClient, agentId: string) {
  // One statement, so that a session that is created right now is in both counts or in none.
  const [row] = await prisma.$queryRaw<
    { agents: number; totalSessions: number; countedSessions: number }[]
  >`
    SELECT 1 AS "agents", a."totalSessions",
      (SELECT count(*)::int FROM "AgentSession" s WHERE s."agentId" = a."id") AS "countedSessions"
    FROM "AI_Agent" a WHERE a."id" = ${agentId}`;
  return row ?? { agents: 0, totalSessions: 0, countedSessions: 0 };
}

/** Waits for `work`, but no longer than until the signal is aborted; then throws its reason. */
async function orAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) throw signal.reason;
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    await Promise.race([work, aborted]);
  } finally {
    if (onAbort) signal.removeEventListener('abort', onAbort);
  }
}
