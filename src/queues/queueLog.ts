import type { Worker } from 'bullmq';

import type { Logger } from '../logger.ts';
import { addressOf, isOutage, reasonOf } from '../outage.ts';
import type { QueueLocation } from './backend.ts';
import { OutageLog } from '../outageLog.ts';

/** Milliseconds in which a queue's errors make up one line. */
const QUIET_MS = 10_000;

/**
 * Logs what goes wrong between a worker and its queue: an outage in a line at either end, other
 * errors in a line each ten seconds. BullMQ reports each attempt and each job apart, which may be
 * hundreds a second.
 */
export function reportQueue<Data, Result>(
  worker: Worker<Data, Result>,
  { kind, url }: QueueLocation,
  log: Logger,
): void {
  const what = kind === 'redis' ? 'Redis' : 'PostgreSQL';
  const outage = new OutageLog(log, `${what} at ${addressOf(url)} (queue)`);
  let quietUntil = 0;
  let unsaid = 0;
  worker.on('error', (error) => {
    if (isOutage(error)) return outage.away(reasonOf(error));
    if (performance.now() < quietUntil) return void unsaid++;
    log.warn({ reason: reasonOf(error), ...(unsaid > 0 && { unsaid }) }, 'queue error');
    quietUntil = performance.now() + QUIET_MS;
    unsaid = 0;
  });
  worker.getBackend().on('ready', () => outage.back());
}
