import { once } from 'node:events';
import { createInterface } from 'node:readline';

import { createPrismaClient } from '../../database/client.ts';
import { discardDeadLetters as discard } from '../../deadLetters/discard.ts';
import type { ReadOptions } from '../../deadLetters/read.ts';
import { UsageError } from '../../errors.ts';
import { openEventQueues, type EventQueues } from '../../queues/eventQueues.ts';
import { createCounter } from '../counter.ts';
import type { DeadLetterOptions } from '../deadLetters.ts';
import { inEnvironment, type Environment } from '../environment.ts';
import { parseFilter } from '../filter.ts';
import { amount, eventsIn, groupsIn, lettersIn, NONE } from '../letters.ts';
import { ensureSchema } from '../schema.ts';

export async function discardDeadLetters(
  options: DeadLetterOptions & { yes?: boolean },
): Promise<void> {
  const read = parseFilter(options, 0);
  // What fails after the question was not asked about.
  read.filter.until ??= new Date();
  if (!options.yes && !process.stdin.isTTY) {
    throw new UsageError('discard removes dead letters for good; confirm it with --yes');
  }
  await inEnvironment({ ...options, needs: 'all' }, async (environment) => {
    const { closer, databaseUrl, queue, result } = environment;
    await ensureSchema(environment);
    const prisma = createPrismaClient(databaseUrl, { poolSize: 1 });
    closer.add('database', () => prisma.$disconnect());
    const queues = await openEventQueues(queue, closer);
    const done = { discarded: 0, events: 0 };
    if (!options.yes && !(await isConfirmed(environment, queues, read))) {
      result(done, 'Nothing was discarded.');
      return 1;
    }

    const counter = createCounter('dead letters discarded');
    for await (const group of groupsIn(environment, queues, read)) {
      const gone = await discard(prisma, queues, group);
      done.discarded += gone.length;
      done.events += eventsIn(gone);
      counter.add(gone.length);
    }
    counter.end();
    result(done, done.discarded === 0 ? NONE : `Discarded ${amount(done.discarded, done.events)}.`);
    return 0;
  });
}

async function isConfirmed(
  environment: Environment,
  queues: EventQueues,
  read: ReadOptions,
): Promise<boolean> {
  const found = { letters: 0, events: 0 };
  for await (const letter of lettersIn(environment, queues, read)) {
    found.letters++;
    found.events += letter.events.length;
  }
  if (found.letters === 0) return true; // there is nothing to ask about
  process.stderr.write(
    `Discard ${amount(found.letters, found.events)} for good? They are stored nowhere else. [y/N] `,
  );
  // Not as a terminal, which would take Ctrl-C away from the environment.
  const lines = createInterface({ input: process.stdin, terminal: false });
  environment.stopping.addEventListener('abort', () => lines.close(), { once: true });
  const [answer = ''] = await Promise.race([once(lines, 'line'), once(lines, 'close')]);
  lines.close();
  environment.stopping.throwIfAborted();
  return /^y(es)?$/i.test((answer as string).trim());
}
