import type { PrismaClient } from '../database/client.ts';
import {
  countDiscards,
  settleDiscards,
  uncountDiscards,
  type Discard,
} from '../ledger/discards.ts';
import type { EventQueues } from '../queues/eventQueues.ts';
import type { DeadLetter } from './deadLetter.ts';

/**
 * Removes dead letters for good, and counts their events as discarded. They are counted first: cut
 * off in between, the command finds them again and counts them no second time, while the other
 * way round they would be gone without a trace. A job that somebody retried meanwhile is left.
 *
 * @returns those that are removed
 */
export async function discardDeadLetters(
  prisma: PrismaClient,
  queues: EventQueues,
  letters: readonly DeadLetter[],
): Promise<DeadLetter[]> {
  const discards = letters.map((letter): Discard & { letter: DeadLetter } => ({
    letter,
    kind: letter.kind,
    jobId: letter.job.id ?? '',
    madeAt: letter.job.timestamp,
    producer: letter.producer,
    events: letter.events.length,
  }));
  await countDiscards(prisma, discards);
  const kept: Discard[] = [];
  const gone: DeadLetter[] = [];
  await Promise.all(
    discards.map(async (discard) => {
      const queue = queues[discard.kind];
      const state = await queue.getJobState(discard.jobId);
      if (state === 'failed' && (await queue.remove(discard.jobId)) === 1) {
        gone.push(discard.letter);
        // One that another has just discarded is gone, and counted under the same name.
      } else if ((await queue.getJobState(discard.jobId)) !== 'unknown') kept.push(discard);
    }),
  );
  if (kept.length > 0) await uncountDiscards(prisma, kept);
  await settleDiscards(
    prisma,
    discards.filter((discard) => !kept.includes(discard)),
  );
  return gone;
}
