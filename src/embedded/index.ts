import { join, resolve } from 'node:path';

import { loadConfig, type ServerConfig } from '../config.ts';
import { EmbeddedServerError } from '../errors.ts';
import { chooseQueue, queuePrefix, rememberQueue } from './choice.ts';
import { type Lease, type LeaseRequest, takeLease } from './lease.ts';

/** Where the record and the queues are, whether configured or embedded. */
export interface Servers {
  databaseUrl: string;
  queue: { kind: 'redis' | 'postgres'; url: string; prefix: string };
  /** One line for people: which servers were chosen, and why. */
  explanation: string;
  /**
   * Calls `listener` when embedded servers are gone for good. A supervisor that was merely
   * killed is replaced, and the servers come back on the same ports, without a call.
   */
  onLost(listener: (reason: Error) => void): void;
  /** Lets embedded servers go; they stop a moment after the last process did so, or ended. */
  close(): Promise<void>;
}

/**
 * Finds the servers that `config` names, and starts embedded ones for those that it does not.
 * Nothing is connected to because it merely listens somewhere.
 *
 * @param log - told what takes long, such as the making of a new database
 * @param options.graceMs - milliseconds from the last process's end to the servers'; default 2,000
 * @throws {EmbeddedServerError} saying what to do, within half a minute
 *
 * @example
 * const servers = await openServers(config);
 * log.info(servers.explanation);
 * const prisma = createPrismaClient(servers.databaseUrl);
 */
export async function openServers(
  config: ServerConfig,
  log: (line: string) => void = () => {},
  options: { graceMs?: number } = {},
): Promise<Servers> {
  const dataDir = resolve(config.ANNALS_DATA_DIR);
  const queue = chooseQueue(config, dataDir);
  const order = {
    postgres: config.DATABASE_URL === undefined,
    redis: queue.kind === 'private redis' ? queue.program : null,
  };
  const embedded =
    order.postgres || order.redis
      ? await holdLease({ ...order, ...options, dataDir, log })
      : undefined;
  // What was chosen once holds for this data folder; with nothing embedded there need not be one.
  if (embedded && queue.remember) rememberQueue(dataDir, queue.kind);

  const databaseUrl = config.DATABASE_URL ?? (embedded?.lease().databaseUrl as string);
  const redisUrl = config.REDIS_URL ?? embedded?.lease().redisUrl;
  const postgres = order.postgres
    ? `embedded (DATABASE_URL is not set), data in ${join(config.ANNALS_DATA_DIR, 'postgres')}`
    : 'as DATABASE_URL says';
  const prefix = queuePrefix(config, queue.kind);
  return {
    databaseUrl,
    queue:
      queue.kind === 'postgres'
        ? { kind: 'postgres', url: databaseUrl, prefix }
        : { kind: 'redis', url: redisUrl as string, prefix },
    explanation: `PostgreSQL: ${postgres}; queues: ${queue.why}`,
    onLost: (listener) => void embedded?.lost.then(listener),
    close: async () => embedded?.close(),
  };
}

/**
 * DATABASE_URL, or the URL of the embedded PostgreSQL, which then runs until this process ends.
 * For programs such as Prisma's command line that have no moment at which to close anything.
 *
 * @throws {EmbeddedServerError} as `openServers` does
 *
 * @example datasource: { url: await databaseUrlForThisProcess() }
 */
export async function databaseUrlForThisProcess(
  config: Pick<ServerConfig, 'DATABASE_URL' | 'ANNALS_DATA_DIR'> = loadConfig(),
): Promise<string> {
  if (config.DATABASE_URL !== undefined) return config.DATABASE_URL;
  const dataDir = resolve(config.ANNALS_DATA_DIR);
  const lease = await takeLease({ dataDir, postgres: true, redis: null });
  return lease.databaseUrl as string;
}

/** A lease that is taken anew when its supervisor is killed, as long as the servers keep their addresses. */
async function holdLease(request: LeaseRequest) {
  const take = () => takeLease(request);
  let lease: Lease = await take();
  let closed = false;

  const keep = async (): Promise<Error> => {
    for (;;) {
      await lease.lost;
      request.log?.('The supervisor of the embedded servers is gone; taking a new lease');
      const { databaseUrl, redisUrl } = lease;
      try {
        lease = await take();
      } catch (error) {
        return error as Error;
      }
      if (closed) await lease.close();
      if (lease.databaseUrl !== databaseUrl || lease.redisUrl !== redisUrl) {
        return new EmbeddedServerError(
          'The embedded servers came back at another address. Start this process again.',
        );
      }
    }
  };
  return {
    lease: () => lease,
    lost: keep(),
    close: () => {
      closed = true;
      return lease.close();
    },
  };
}
