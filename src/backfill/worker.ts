import { setInterval as every } from 'node:timers';

import type { Job } from 'bullmq';
import type pg from 'pg';

import { Closer } from '../closer.ts';
import { createPrismaClient } from '../database/client.ts';
import { serverMessage } from '../database/faults.ts';
import type { Logger } from '../logger.ts';
import {
  openTaskQueue,
  openTaskWorker,
  prepareQueues,
  type QueueLocation,
} from '../queues/backend.ts';
import { reportQueue } from '../queues/queueLog.ts';
import { openPool } from './database.ts';
import { createThrottle } from './throttle.ts';
import { priorityOf } from './transform.ts';
import { readStatus } from './status.ts';
import { TRANSFORMS, transformOf } from './transforms/index.ts';
import { CHUNK_ROWS } from './tuner.ts';
import { workLane, type Step, type Task, type Workbench } from './step.ts';

export interface BackfillWorkerOptions {
  databaseUrl: string;
  queue: QueueLocation;
  log: Logger;
  /** Chunks that this process works on at once. Default 2. */
  concurrency?: number;
  /** Milliseconds between two looks for lanes that are due. Default 1,000. */
  lookEveryMs?: number;
  /** Milliseconds after which a lane that nobody moves on is given to another worker. Default 10,000. */
  leaseMs?: number;
  /** Milliseconds after which the job of a worker that died is given to another. Default 15,000. */
  jobLockMs?: number;
}

export interface BackfillWorker {
  /** Looks for lanes that are due, now. */
  look(): Promise<void>;
  /** Finishes the chunks that are under way and closes every connection. Never rejects. */
  stop(deadlineMs: number): Promise<void>;
}

/**
 * Works on the chunks of whatever backfills are running, and looks regularly for lanes whose task
 * the queue has lost. It costs one small query a second while there is nothing to do.
 */
export async function startBackfillWorker(options: BackfillWorkerOptions): Promise<BackfillWorker> {
  const { databaseUrl, queue: location, concurrency = 2 } = options;
  const log = options.log.child({ queue: 'backfill' });
  const closer = new Closer(log);
  const prisma = createPrismaClient(databaseUrl, {
    poolSize: 1,
    applicationName: 'annals backfill',
  });
  closer.add('backfill database', () => prisma.$disconnect());
  const pool = openPool(databaseUrl, concurrency + 2);
  closer.add('backfill pool', () => pool.end());

  await prepareQueues(location);
  const throttle = createThrottle(pool, location);
  closer.add('event queues', () => throttle.close());
  const bench: Workbench = { pool, prisma, log, throttle, leaseMs: options.leaseMs ?? 10_000 };
  const queue = openTaskQueue<Task>(location, 'backfill');
  queue.on('error', () => {}); // a call that matters rejects
  closer.add('backfill queue', () => queue.close());

  const send = async ({ next }: Step) => {
    if (!next) return;
    const { delayMs, ...task } = next;
    const priority = priorityOf(transformOf(task.table));
    await queue.add('chunk', task, { priority, ...(delayMs > 0 && { delay: delayMs }) });
  };
  // A queue that is paused, or away, takes no task anew: they would pile up in the one, and the
  // lanes of the other would be given up for nothing.
  const reviveUnlessPaused = async () => {
    if (!(await queue.isPaused())) await reviveLanes(bench, send);
  };
  let looking: Promise<void> | undefined;
  const look = () => {
    looking ??= reviveUnlessPaused()
      .catch((error: unknown) => log.debug({ reason: serverMessage(error) }, 'could not look'))
      .finally(() => (looking = undefined));
    return looking;
  };

  let progress: { at: number; reading: Promise<Map<string, number>> } | undefined;
  const percentages = (isLaneDone: boolean) => {
    if (!progress || isLaneDone || performance.now() - progress.at > PROGRESS_EVERY_MS) {
      progress = { at: performance.now(), reading: readPercentages(pool) };
    }
    return progress.reading;
  };
  const process = async (job: Job<Task>) => {
    const logOfJob = log.child({ job: job.id });
    if (!TRANSFORMS.some(({ name }) => name === job.data.table)) {
      logOfJob.warn({ table: job.data.table }, 'left to a worker of a newer version');
      return { rows: 0 };
    }
    const step = await workLane({ ...bench, log: logOfJob }, job.data);
    // A task that the queue does not take now is made anew when the lane's lease has run out.
    await send(step).catch((error: unknown) =>
      logOfJob.warn({ reason: serverMessage(error) }, 'the queue does not take the next chunk'),
    );
    if (step.lanesChanged) await look();
    if (step.rows === undefined) return { rows: 0 };
    const { phase, table } = job.data;
    // What people see on the board is no reason to do the chunk again.
    await job.log(`${phase} ${table}: ${step.rows} rows in ${step.tookMs} ms`).catch(() => {});
    await percentages(!step.next)
      .then((known) => job.updateProgress(known.get(table) ?? 0))
      .catch(() => {});
    return { rows: step.rows };
  };
  const worker = openTaskWorker(location, 'backfill', process, {
    concurrency,
    lockDuration: options.jobLockMs ?? 15_000,
  });
  reportQueue(worker, location, log);
  const timer = every(() => void look(), options.lookEveryMs ?? 1000);
  closer.add(
    'backfill worker',
    async () => {
      clearInterval(timer);
      await worker.pause();
      await worker.close(true);
      await looking;
    },
    () => worker.close(true),
  );
  void look();
  return { look, stop: (deadlineMs) => closer.close(deadlineMs) };
}

/** Milliseconds for which the progress of the runs is not read again. */
const PROGRESS_EVERY_MS = 1000;

/** How far the run of each table is, in percent. */
async function readPercentages(pool: pg.Pool): Promise<Map<string, number>> {
  const runs = await readStatus(
    pool,
    TRANSFORMS.map(({ name }) => name),
  );
  return new Map(runs.map(({ table, fraction }) => [table, Math.floor(1000 * fraction) / 10]));
}

/**
 * Gives lanes that are due a new token and a new task. A lane whose chunk is being committed is
 * locked, and left alone: its worker lives. A lane whose chunk was begun and did not commit still
 * bears the mark of the lock (`xmax`; every update leaves a row without one). `revivals` counts
 * these: they may be repeated, and since such a chunk may have ended its worker, not in that size.
 * The others' tasks were lost, or wait in the queue behind long ones.
 */
async function reviveLanes(bench: Workbench, send: (step: Step) => Promise<void>): Promise<void> {
  const { rows } = await bench.pool.query<Task>(
    `WITH due AS (
       SELECT l."id", r."tableName", l.xmax <> 0 AS "wasBegun"
       FROM "BackfillLane" l JOIN "BackfillRun" r ON r."id" = l."runId"
       WHERE r."status" = 'running' AND NOT l."isDone" AND l."dueAt" <= now() AT TIME ZONE 'utc'
         AND r."tableName" = ANY ($2) -- tables of a newer version are its workers' business
       ORDER BY l."id" FOR NO KEY UPDATE OF l SKIP LOCKED
     )
     UPDATE "BackfillLane" l
     SET "token" = "token" + 1, "revivals" = "revivals" + "wasBegun"::int,
       "chunkRows" = CASE WHEN "wasBegun" THEN greatest(${CHUNK_ROWS.min}, "chunkRows" / 2) ELSE "chunkRows" END,
       "dueAt" = now() AT TIME ZONE 'utc' + $1 * interval '1 ms'
     FROM due WHERE l."id" = due."id"
     RETURNING l."id" AS "lane", l."token", l."phase", due."tableName" AS "table"`,
    [bench.leaseMs, TRANSFORMS.map(({ name }) => name)],
  );
  for (const task of rows) await send({ next: { ...task, delayMs: 0 } });
}
