import {
  createRedisBackend,
  type BackendFactory,
  type ConnectionOptions,
  type RedisQueueBackend,
} from 'bullmq';
import { Redis } from 'ioredis';
import pg from 'pg';

import { Connection, KEEP_ALIVE } from '../database/connection.ts';
import { parseJsonb } from '../json.ts';
import { isOutage } from '../outage.ts';
import { createProducerBackend, preferLz4 } from './producerBackend.ts';
import { createWorkerBackend } from './workerBackend.ts';

/** Where the queues live. `prefix` is the key prefix in Redis and the schema in PostgreSQL. */
export interface QueueLocation {
  kind: 'redis' | 'postgres';
  url: string;
  prefix: string;
}

/** How a client of either back end connects. */
interface QueueConnection {
  connection: ConnectionOptions;
  prefix: string;
  factory: BackendFactory<RedisQueueBackend>;
}

/** Milliseconds that a producer's command may take before the producer counts the queue as away. */
const COMMAND_TIMEOUT_MS = 10_000;

/** How soon a client of Redis tries again, where it is away and where it is still loading its data. */
const RECONNECT = {
  protocol: 2, // which BullMQ's scripts were written for
  maxRetriesPerRequest: null,
  retryStrategy: (attempt: number) => Math.min(attempt * 100, 1000),
  maxLoadingRetryTime: 500,
} as const;

/**
 * What a producer's call could not send it sends again itself: were the client to keep it as well,
 * an outage would fill the agent's memory, and then Redis, with copies.
 */
const PRODUCER_REDIS = {
  commandTimeout: COMMAND_TIMEOUT_MS,
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
};

/**
 * Opens the connection that the queues of a producer share on Redis. It is the producer's to close:
 * BullMQ cannot let go of one of its own that was never made.
 */
export function openRedis(location: QueueLocation): Redis {
  let movedAt = -Infinity;
  return new Redis(location.url, {
    ...RECONNECT,
    ...PRODUCER_REDIS,
    // Nor may a server that hangs hold up the end of the agent's process.
    disconnectTimeout: 100,
    // A primary that became a replica keeps its connections; the new one is behind the same name.
    reconnectOnError: (error: Error) => {
      const isDue = performance.now() - movedAt >= MOVE_MS && IS_REPLICA.test(error.message);
      if (isDue) movedAt = performance.now();
      return isDue;
    },
  });
}

const IS_REPLICA = /\b(?:READONLY|MASTERDOWN)\b/;

/** Milliseconds between two attempts to find the primary behind the address of a replica. */
const MOVE_MS = 1000;

/**
 * Milliseconds of silence after which a worker's connection to Redis counts as dead. Longer than
 * the 10 s that a worker waits for a job at most, in which silence is right.
 */
const SILENCE_MS = 15_000;

/**
 * Connections to PostgreSQL that are shared: by the queues of a producer, by all other queues of a
 * process, and by its workers, each of which takes a third at most (`PoolShare`). That is a call and
 * one that is late for a queue; for a worker the statement whose turn it is, a completion that is made
 * alone, the locks it renews, and a job that is failed or put back.
 * Besides, each worker has a connection on which it listens.
 */
const MAX_CONNECTIONS = { producer: 6, worker: 12 } as const;

/**
 * How a queue's client connects.
 *
 * @param onOutage - told of what Redis answers a worker instead of serving it
 */
export function connect(
  location: QueueLocation,
  role: 'producer' | 'worker',
  onOutage: (error: Error) => void = () => {},
): QueueConnection {
  if (location.kind === 'redis') {
    return {
      // A worker's blocking commands must wait for ever; a producer must learn that Redis is away.
      connection: {
        url: location.url,
        ...RECONNECT,
        ...(role === 'producer' && PRODUCER_REDIS),
        ...(role === 'worker' && {
          socketTimeout: SILENCE_MS,
          // A call that Redis refuses because it is read-only, full, … is made again after a pause
          // on a new connection: BullMQ would count its failure against the job.
          reconnectOnError: (error: Error) => {
            if (!isOutage(error)) return false;
            onOutage(error);
            return 2;
          },
        }),
      },
      prefix: location.prefix,
      factory: createRedisBackend,
    };
  }
  return {
    connection: {
      connectionString: location.url,
      schema: location.prefix,
      max: MAX_CONNECTIONS[role],
      ...(role === 'producer' && { query_timeout: COMMAND_TIMEOUT_MS, onConnect: preferLz4 }),
      connectionTimeoutMillis: 5000,
      ...KEEP_ALIVE,
      Client: Connection,
      application_name: `annals ${role}`,
      types: { getTypeParser: parserOf },
    },
    prefix: location.prefix,
    // The classes of BullMQ are typed by their back end, and code that takes either needs one type.
    factory: (role === 'worker'
      ? createWorkerBackend
      : createProducerBackend) as unknown as BackendFactory<RedisQueueBackend>,
  };
}

/**
 * Parses what PostgreSQL sends. BullMQ reads a job's data as parsed JSON and stringifies it again,
 * so it is parsed in a way that survives this.
 */
function parserOf(oid: number, format?: 'text' | 'binary'): unknown {
  return oid === pg.types.builtins.JSONB ? parseJsonb : pg.types.getTypeParser(oid, format);
}
