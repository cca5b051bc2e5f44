import type { DeadLetter } from '../../deadLetters/deadLetter.ts';
import { retryDeadLetter } from '../../deadLetters/retry.ts';
import { openEventQueues } from '../../queues/eventQueues.ts';
import { createCounter } from '../counter.ts';
import type { DeadLetterOptions } from '../deadLetters.ts';
import { inEnvironment } from '../environment.ts';
import { parseFilter } from '../filter.ts';
import {
  amount,
  eventsIn,
  fitting,
  groupsIn,
  heading,
  lettersIn,
  NONE,
  outline,
  printable,
  write,
} from '../letters.ts';

export async function list(options: DeadLetterOptions): Promise<void> {
  await print(options, 20, (letter) =>
    options.json
      ? JSON.stringify(outline(letter))
      : `${heading(letter)}\n  ${fitting(letter.reason, 2)}`,
  );
}

export async function show(options: DeadLetterOptions): Promise<void> {
  await print(options, 5, (letter) => {
    const { events } = letter;
    if (options.json) return JSON.stringify({ ...outline(letter), events });
    const lines = events.map(
      ({ event, reason }) => `  ${printable(reason)}\n    ${printable(JSON.stringify(event))}`,
    );
    return [heading(letter), ...lines].join('\n');
  });
}

/** Prints dead letters one by one: what they hold may be large. */
async function print(
  options: DeadLetterOptions,
  defaultLimit: number,
  format: (letter: DeadLetter) => string,
): Promise<void> {
  const read = parseFilter(options, defaultLimit);
  await inEnvironment({ ...options, needs: 'queue' }, async (environment) => {
    const queues = await openEventQueues(environment.queue, environment.closer);
    let count = 0;
    const missing = new Set(read.filter.ids);
    for await (const letter of lettersIn(environment, queues, read)) {
      if (!(await write(`${format(letter)}\n`))) break;
      missing.delete(letter.id);
      count++;
    }
    if (missing.size > 0 && count < read.limit) {
      environment.say(`Not there, or not meant by the other options: ${[...missing].join(', ')}`);
      return 1;
    }
    if (count === 0) environment.say(NONE);
    else if (count === read.limit) {
      environment.say(`These are the newest ${count}; there may be more (--limit 0 takes all).`);
    }
    return 0;
  });
}

export async function retry(options: DeadLetterOptions): Promise<void> {
  const read = parseFilter(options, 0);
  await inEnvironment({ ...options, needs: 'queue' }, async (environment) => {
    const queues = await openEventQueues(environment.queue, environment.closer);
    const counter = createCounter('dead letters retried');
    const done = { retried: 0, events: 0 };
    for await (const group of groupsIn(environment, queues, read)) {
      const isRetried = await Promise.all(group.map(retryDeadLetter));
      const retried = group.filter((_, index) => isRetried[index]); // the others somebody else did
      done.retried += retried.length;
      done.events += eventsIn(retried);
      counter.add(retried.length);
    }
    counter.end();
    environment.result(
      done,
      done.retried === 0
        ? NONE
        : `Retried ${amount(done.retried, done.events)}. Workers take them up; what fails again is a dead letter again.`,
    );
    return 0;
  });
}
