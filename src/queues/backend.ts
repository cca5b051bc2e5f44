import {
  assertSchemaCompatibility,
  Job,
  LATEST_SCHEMA_VERSION,
  Queue,
  runMigrations,
  SchemaMigrationRequiredError,
  type Processor,
  type Worker,
  type WorkerOptions,
} from 'bullmq';
import type { Redis } from 'ioredis';

import { Connection } from '../database/connection.ts';
import type { Envelope } from './envelope.ts';
import {
  EVENT_STREAM_MAX_LENGTH,
  QUEUES,
  TASK_QUEUES,
  type EventKind,
  type QueuePolicy,
  type TaskQueueName,
} from './catalogue.ts';
import { connect, type QueueLocation } from './connection.ts';
import { EnvelopeWorker } from './envelopeWorker.ts';
import type { LinesOf } from './eventList.ts';
import { SteadyWorker } from './steadyWorker.ts';
import { startTracing, traced } from './tracing.ts';

export type { QueueLocation } from './connection.ts';

/** What a processor returns; it stands on the board as the job's return value. */
export interface JobResult {
  /** Events of the job whose rows are committed, by this attempt or an earlier one. */
  committed: number;
}

export type EventJob = Job<Envelope, JobResult>;
export type EventQueue = Queue<EventJob>;
export type EventWorker = Worker<Envelope, JobResult>;

/** Milliseconds that a step of the migration may take, waiting for another process's included. */
const PREPARE_TIMEOUT_MS = 60_000;

/**
 * Makes a location ready for queues, and this process for tracing them: brings the PostgreSQL back end's own schema up to date, and
 * does nothing for Redis. Safe for any number of processes at once (BullMQ migrates in one
 * transaction under an advisory lock), and free of DDL when nothing is to be done, so that
 * producers need no right to create.
 *
 * @param Client - class of the connection to PostgreSQL
 */
export async function prepareQueues(
  location: QueueLocation,
  Client: typeof Connection = Connection,
): Promise<void> {
  await startTracing();
  if (location.kind === 'redis') return;
  const client = new Client({
    connectionString: location.url,
    connectionTimeoutMillis: 5000,
    query_timeout: PREPARE_TIMEOUT_MS,
  });
  await client.connect();
  try {
    const version = await assertSchemaCompatibility(client, location.prefix).catch(
      (error: unknown) => {
        if (error instanceof SchemaMigrationRequiredError) return 0;
        throw error;
      },
    );
    if (version < LATEST_SCHEMA_VERSION) await runMigrations(client, location.prefix);
  } finally {
    await client.end();
  }
}

/**
 * A job whose envelope is JSON already. BullMQ would stringify its data once more; producers
 * encode each event once, when it is emitted, and that text goes to the queue as it is.
 */
class PackedJob extends Job {
  override asJSON(): ReturnType<Job['asJSON']> {
    const text = this.data as string;
    this.data = undefined;
    try {
      return { ...super.asJSON(), data: text };
    } finally {
      this.data = text;
    }
  }
}

/** A queue that takes envelopes as text, as `packEnvelope` makes them. */
class PackedQueue extends Queue<string> {
  protected override get Job(): typeof Job {
    return PackedJob as unknown as typeof Job;
  }
}

/**
 * Opens a queue for a producer, whose jobs' data is envelope text.
 *
 * @param redis - the connection to use, where the queues are on Redis
 * @param Client - class of the connections to PostgreSQL, where they are there
 */
export function openProducerQueue(
  location: QueueLocation,
  kind: EventKind,
  redis?: Redis,
  Client: typeof Connection = Connection,
): Queue<string> {
  const { connection, prefix, factory } = connect(location, 'producer');
  const options = {
    connection: redis ?? { ...connection, Client },
    prefix,
    streams: STREAMS,
    ...traced(),
  };
  return new PackedQueue(kind, options, factory);
}

/**
 * Opens a queue to look at and to steer.
 *
 * @param redis - the connection to use, where the queues are on Redis
 */
export function openQueue(location: QueueLocation, kind: EventKind, redis?: Redis): EventQueue {
  const { connection, prefix, factory } = connect(location, 'producer');
  const options = { connection: redis ?? connection, prefix, streams: STREAMS };
  return new Queue<EventJob>(kind, options, factory);
}

/**
 * Opens a queue of tasks. A call fails while the queue is away; the task's owner asks again.
 *
 * @param redis - the connection to use, where the queues are on Redis
 */
export function openTaskQueue<Task>(
  location: QueueLocation,
  name: TaskQueueName,
  redis?: Redis,
): Queue<Job<Task>> {
  const { connection, prefix, factory } = connect(location, 'producer');
  const options = { connection: redis ?? connection, prefix, streams: STREAMS };
  return new Queue<Job<Task>>(name, options, factory);
}

const STREAMS = { events: { maxLen: EVENT_STREAM_MAX_LENGTH } };

type OpenWorkerOptions = Pick<WorkerOptions, 'concurrency' | 'lockDuration' | 'autorun' | 'name'>;

/**
 * Opens a worker on a queue. It takes jobs at once unless `autorun` is false.
 *
 * @param options.linesOf - makes the lines that are written of a right job's events
 */
export function openWorker(
  location: QueueLocation,
  kind: EventKind,
  processor: Processor<Envelope, JobResult>,
  { linesOf, ...options }: OpenWorkerOptions & { linesOf?: LinesOf },
): EventWorker {
  const worker = startWorker(
    EnvelopeWorker<JobResult>,
    location,
    kind,
    QUEUES[kind],
    processor,
    options,
  );
  worker.linesOf = linesOf;
  return worker;
}

/** Opens a worker on a queue of tasks. */
export function openTaskWorker<Task, Result>(
  location: QueueLocation,
  name: TaskQueueName,
  processor: Processor<Task, Result>,
  options: OpenWorkerOptions,
): Worker<Task, Result> {
  return startWorker(
    SteadyWorker<Task, Result>,
    location,
    name,
    TASK_QUEUES[name],
    processor,
    options,
  );
}

function startWorker<Data, Result, Each extends SteadyWorker<Data, Result>>(
  WorkerClass: new (
    name: string,
    processor: Processor<Data, Result>,
    options: WorkerOptions,
    factory: ReturnType<typeof connect>['factory'],
  ) => Each,
  location: QueueLocation,
  name: string,
  { keepCompleted, keepFailed }: QueuePolicy,
  processor: Processor<Data, Result>,
  options: OpenWorkerOptions,
): Each {
  const { connection, prefix, factory } = connect(location, 'worker', (error) =>
    worker.emit('error', error),
  );
  const lockDuration = options.lockDuration ?? 15_000;
  const worker = new WorkerClass(
    name,
    processor,
    {
      ...options,
      connection,
      prefix,
      lockDuration,
      // The jobs of a worker that died are found within half a lock of its expiry.
      stalledInterval: lockDuration / 2,
      // A job may be interrupted by kill -9 any number of times and is never given up for that
      // (the bound is PostgreSQL's `integer`).
      maxStalledCount: 2 ** 31 - 1,
      // Workers come back within a second of their queue, not after BullMQ's 15.
      runRetryDelay: 1000,
      removeOnComplete: keepCompleted,
      ...(keepFailed && { removeOnFail: keepFailed }),
      ...traced(),
    },
    factory,
  );
  return worker;
}
