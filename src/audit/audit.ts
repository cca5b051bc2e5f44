import { setTimeout as sleep } from 'node:timers/promises';

import type { PrismaClient } from '../database/client.ts';
import { readLedger } from '../ledger/ledger.ts';
import type { EventQueues } from '../queues/eventQueues.ts';
import type { EventKind } from '../queues/events.ts';
import { Accounts, type Account, type Balance } from './accounts.ts';
import { countQueued } from './queued.ts';
import { countSpooled } from './spooled.ts';

export interface AuditOptions {
  prisma: PrismaClient;
  queues: EventQueues;
  /** Spool folders to look into. */
  spools: Iterable<string>;
  /** Milliseconds that events may be on their way, in a producer's memory, before they are missing. */
  patienceMs: number;
  signal: AbortSignal;
  /** Told of each job that is read. */
  onJob: () => void;
}

export interface AuditReport {
  /** Whether everything that had been accepted when the audit began is accounted for. */
  ok: boolean;
  /** Events that are not. */
  missing: number;
  kinds: Record<EventKind, Account & Balance>;
  /** Events of producers that do not say what they accepted; `accepted` is 0. */
  elsewhere: Account;
}

const LOOK_AGAIN_MS = 500;

/**
 * Compares what producers accepted with what became of it. Producers that are at work hold events in
 * memory for moments, where nobody can see them: what was known to be accepted at the first look
 * has to be found by the last one.
 *
 * @throws the signal's reason when that is aborted
 */
export async function audit(options: AuditOptions): Promise<AuditReport> {
  const { patienceMs, signal } = options;
  const deadline = performance.now() + patienceMs;
  const first = await look(options);
  for (let latest = first; ; latest = await look(options)) {
    const missing = latest.missingSince(first);
    if (missing === 0 || performance.now() >= deadline) {
      return {
        ok: missing === 0,
        missing,
        kinds: latest.byKind(),
        elsewhere: latest.elsewhere(),
      };
    }
    await sleep(LOOK_AGAIN_MS, undefined, { signal });
  }
}

/**
 * Counts everywhere, in the order in which events move on: spool, queue, table. So an event that
 * moves while it is looked for may be seen twice, but is not missed.
 */
async function look({ prisma, queues, spools, signal, onJob }: AuditOptions): Promise<Accounts> {
  const accounts = new Accounts();
  await countSpooled(spools, accounts);
  await countQueued(queues, accounts, () => {
    signal.throwIfAborted();
    onJob();
  });
  for (const entry of await readLedger(prisma, accounts.producerIds())) {
    const { kind, producerId, accepted, dropped } = entry;
    accounts.told(kind, { id: producerId, accepted, dropped });
    for (const place of ['committed', 'duplicates', 'discarded'] as const) {
      accounts.add(place, kind, producerId, entry[place]);
    }
  }
  return accounts;
}
