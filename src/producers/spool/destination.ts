import { createHash } from 'node:crypto';
import { join, resolve } from 'node:path';

import type { ProducerConfig } from '../../config.ts';
import type { QueueLocation } from '../../queues/backend.ts';

/*
 * Events to one destination have a folder of their own within ANNALS_SPOOL_DIR: a producer that
 * sends elsewhere would replay them to where nobody looks for them.
 */

/** The folder for events to queues at a known place. */
export function spoolFolder(config: ProducerConfig, location: QueueLocation): string {
  return folderFor(config, destinationOf(location));
}

/**
 * The folder for events to the queues that the configuration means, found without starting them.
 * Embedded servers are known by their data: their ports may change.
 */
export function configuredSpoolFolder(config: ProducerConfig): string {
  return folderFor(config, configuredDestination(config));
}

/** Where events go, in words that stand beside them in the spool; without credentials. */
export function describeDestination(
  config: ProducerConfig,
  location: QueueLocation | undefined,
): string {
  const parts = location ? destinationOf(location) : configuredDestination(config);
  return parts.filter((part) => part !== '').join(' ');
}

const destinationOf = ({ kind, url, prefix }: QueueLocation) => [kind, place(kind, url), prefix];

function configuredDestination(config: ProducerConfig): string[] {
  const {
    ANNALS_QUEUE_BACKEND: backend,
    ANNALS_QUEUE_PREFIX: prefix,
    DATABASE_URL,
    REDIS_URL,
  } = config;
  if (REDIS_URL !== undefined && backend !== 'postgres') {
    return destinationOf({ kind: 'redis', url: REDIS_URL, prefix });
  }
  if (DATABASE_URL !== undefined && backend === 'postgres') {
    return destinationOf({ kind: 'postgres', url: DATABASE_URL, prefix });
  }
  const database = DATABASE_URL === undefined ? '' : place('postgres', DATABASE_URL);
  return ['embedded', resolve(config.ANNALS_DATA_DIR), database, backend, prefix];
}

function folderFor(config: ProducerConfig, destination: string[]): string {
  const hash = createHash('sha256').update(destination.join('\n')).digest('hex');
  return join(resolve(config.ANNALS_SPOOL_DIR), hash.slice(0, 16));
}

/** Without user and password, which may change. */
function place(kind: QueueLocation['kind'], url: string): string {
  const parsed = new URL(url);
  const query = new Map(parsed.searchParams); // of two values the last, as with both clients
  const chosen = choosing(kind, parsed, Boolean(query.get('path')))
    .filter((name) => query.get(name))
    .map((name) => `${name}=${query.get(name)}`);
  // Without such a parameter it is what it always was: folders keep their names.
  return parsed.host + parsed.pathname + (chosen.length > 0 ? `?${chosen.join('&')}` : '');
}

/**
 * The parameters of a URL that choose a server or a database, as its client obeys them. For pg (by
 * pg-connection-string) they win over what stands before them, and the folder of a socket is a host.
 * For ioredis they stand for what is not there, but `path`, a socket, wins over host and port.
 */
function choosing(kind: QueueLocation['kind'], url: URL, isSocket: boolean): string[] {
  if (kind === 'postgres') return ['host', 'port'];
  const server = [...(url.hostname ? [] : ['host']), ...(url.port ? [] : ['port'])];
  const database = url.pathname.length > 1 ? [] : ['db'];
  return [...(isSocket ? ['path'] : server), ...database];
}
