import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { UnrecoverableError } from 'bullmq';

import type { Config } from '../config.ts';
import { openDatabase } from '../database/client.ts';
import { serverMessage } from '../database/faults.ts';
import { Closer } from '../closer.ts';
import { closeIdleAccounts } from '../ledger/closed.ts';
import type { Logger } from '../logger.ts';
import { addressOf, outlast, reasonOf } from '../outage.ts';
import {
  openWorker,
  prepareQueues,
  type EventWorker,
  type QueueLocation,
} from '../queues/backend.ts';
import { EVENT_KINDS, type EventKind } from '../queues/catalogue.ts';
import { BatchWriter, LANES, type BatchWriterStats } from './batchWriter.ts';
import { OutageLog } from '../outageLog.ts';
import type { WorkerHooks } from './hooks.ts';
import { createProcessor, DeadLetterError } from './processor.ts';
import { reportQueue } from '../queues/queueLog.ts';
import { createWrite, linesOfKind } from './writers/index.ts';

export interface WorkersOptions {
  databaseUrl: string;
  queue: QueueLocation;
  config: Pick<
    Config,
    | 'ANNALS_DATABASE_POOL_SIZE'
    | 'ANNALS_WORKER_CONCURRENCY'
    | 'ANNALS_BATCH_MAX_ROWS'
    | 'ANNALS_JOB_LOCK_MS'
    | 'ANNALS_JOB_ATTEMPTS'
  >;
  log: Logger;
  /** Ends the wait for a queue that is away at the start. */
  signal?: AbortSignal;
  hooks?: WorkerHooks;
}

export interface Workers {
  /** Figures of each kind since the start. */
  stats(): Record<EventKind, BatchWriterStats>;
  /**
   * Stops taking jobs, finishes those that are held and closes every connection. What is not
   * finished by the deadline goes to another worker when its lock has run out. Never rejects.
   */
  stop(deadlineMs: number): Promise<void>;
}

/** Milliseconds in which jobs that cannot be finished are handed back to their queue. */
const HAND_BACK_MS = 300;

/** Prisma begins its messages with the call that failed, over several lines. */
const lastLine = (message: string) => message.trim().split('\n').at(-1) ?? '';

/**
 * Starts one worker for each kind of event. Servers that are away are waited for: those of the
 * queues before this returns where they are in PostgreSQL, all others afterwards.
 */
export async function startWorkers(options: WorkersOptions): Promise<Workers> {
  const { config, databaseUrl, queue, log } = options;
  const closer = new Closer(log);
  const database = openDatabase(databaseUrl, {
    poolSize: config.ANNALS_DATABASE_POOL_SIZE,
    applicationName: 'annals worker',
  });
  const { prisma } = database;
  closer.add('database', () => prisma.$disconnect());

  const writerIds = Array.from({ length: LANES }, () => randomUUID());
  const writers = {} as Record<EventKind, BatchWriter>;
  const workers: EventWorker[] = [];
  // Pausing takes no more jobs and ends when those held are done. It comes before `close`, which
  // BullMQ lets nobody turn into a forced one once it has begun.
  let paused: Promise<unknown> | undefined;
  const pause = () => (paused ??= Promise.all(workers.map((worker) => worker.pause())));
  const disconnect = () => Promise.all(workers.map((worker) => worker.close(true)));
  closer.add(
    'workers',
    () => pause().then(disconnect),
    async () => {
      // What waits for PostgreSQL goes back to its queue, if that answers.
      for (const writer of Object.values(writers)) writer.abandon();
      await Promise.race([pause(), sleep(HAND_BACK_MS)]);
      await disconnect();
    },
  );

  try {
    const start = new OutageLog(log, `PostgreSQL at ${addressOf(queue.url)}`);
    await outlast(() => prepareQueues(queue), {
      onAway: (error) => start.away(reasonOf(error)),
      ...(options.signal && { signal: options.signal }),
    });
    start.back();
    // Tidying up: nothing waits for it, and schedules do what this could not.
    closeIdleAccounts(prisma).catch((error: unknown) =>
      log.debug({ reason: serverMessage(error) }, 'idle accounts of the ledger were not closed'),
    );
    for (const kind of EVENT_KINDS) {
      const logOfQueue = log.child({ queue: kind });
      const outages = new OutageLog(logOfQueue, `PostgreSQL at ${addressOf(databaseUrl)}`);
      const writes = writerIds.map((writerId) => createWrite(database, kind, writerId));
      const writer = new BatchWriter({
        write: (batch, lane) => writes[lane]!(batch),
        maxRows: config.ANNALS_BATCH_MAX_ROWS,
        onWrite: (written) => {
          const { rows, jobs, job, milliseconds } = written;
          logOfQueue.debug(
            { job, jobs, rows, milliseconds: Math.round(milliseconds) },
            'batch written',
          );
          options.hooks?.onBatch?.(kind, written);
        },
        onOutage: (error) =>
          error === null ? outages.back() : outages.away(lastLine(serverMessage(error))),
      });
      writers[kind] = writer;

      const worker = openWorker(
        queue,
        kind,
        createProcessor(kind, writer, config.ANNALS_JOB_ATTEMPTS),
        {
          concurrency: config.ANNALS_WORKER_CONCURRENCY,
          lockDuration: config.ANNALS_JOB_LOCK_MS,
          autorun: false,
          linesOf: linesOfKind(kind),
        },
      );
      reportQueue(worker, queue, logOfQueue);
      worker.on('failed', (job, error) => {
        const attempt = job?.attemptsMade ?? 0;
        // BullMQ has finished a job that is not tried again.
        const outcome = job?.finishedOn
          ? `dead letter after ${attempt} ${attempt === 1 ? 'attempt' : 'attempts'}`
          : 'not stored yet; tried again later';
        logOfQueue.warn({ job: job?.id, attempt, reason: error.message }, outcome);
        if (error instanceof DeadLetterError) options.hooks?.onDeadLetter?.(kind, error.causes);
        else if (error instanceof UnrecoverableError) {
          options.hooks?.onDeadLetter?.(kind, { unreadable: 1 }); // BullMQ itself gave it up
        }
      });
      workers.push(worker);
      worker.run().catch((error: Error) => logOfQueue.error({ reason: error.message }, 'stopped'));
    }
  } catch (error) {
    await closer.close(5000);
    throw error;
  }

  return {
    stats: () =>
      Object.fromEntries(EVENT_KINDS.map((kind) => [kind, writers[kind].stats])) as Record<
        EventKind,
        BatchWriterStats
      >,
    stop: (deadlineMs) => closer.close(deadlineMs),
  };
}
