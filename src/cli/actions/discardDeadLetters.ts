import { createInterface } from 'node:readline/promises';

import { createPrismaClient } from '../../database/client.ts';
import type { DeadLetter } from '../../deadLetters/deadLetter.ts';
import { discardDeadLetters as discard } from '../../deadLetters/discard.ts';
import type { ReadOptions } from '../../deadLetters/read.ts';
import { UsageError } from '../../errors.ts';
import { openEventQueues, type EventQueues } from '../../queues/eventQueues.ts';
import { createCounter } from '../counter.ts';
import type { DeadLetterOptions } from '../deadLetters.ts';
import { inEnvironment, type Environment } from '../environment.ts';
import { parseFilter } from '../filter.ts';
import { amount, lettersIn, NONE } from '../letters.ts';
import { ensureSchema } from '../schema.ts';

/** Dead letters that are discarded together; each may hold a megabyte. */
const TOGETHER = 16;

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
    let letters: DeadLetter[] = [];
    const discardThese = async () => {
      const gone = await discard(prisma, queues, letters);
      letters = [];
      done.discarded += gone.length;
      done.events += countEvents(gone);
      counter.add(gone.length);
    };
    for await (const letter of lettersIn(environment, queues, read)) {
      if (letters.push(letter) === TOGETHER) await discardThese();
    }
    if (letters.length > 0) await discardThese();
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
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await terminal.question(
      `Discard ${amount(found.letters, found.events)} for good? They are stored nowhere else. [y/N] `,
      { signal: environment.stopping },
    );
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    terminal.close();
  }
}

const countEvents = (letters: readonly DeadLetter[]) =>
  letters.reduce((sum, { events }) => sum + events.length, 0);
