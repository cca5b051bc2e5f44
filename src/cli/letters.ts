import type { DeadLetter } from '../deadLetters/deadLetter.ts';
import { readDeadLetters, type ReadOptions } from '../deadLetters/read.ts';
import type { EventQueues } from '../queues/eventQueues.ts';
import type { Environment } from './environment.ts';

// What the commands about dead letters share.

export const NONE = 'There are no such dead letters.';

/** Reads dead letters until a signal comes, and warns of what cannot be read. */
export async function* lettersIn(
  { log, stopping }: Environment,
  queues: EventQueues,
  read: ReadOptions,
): AsyncGenerator<DeadLetter> {
  const onUnreadable = (id: string) => log.warn({ id }, 'the job is not JSON; passed over');
  for await (const letter of readDeadLetters(queues, { ...read, onUnreadable })) {
    stopping.throwIfAborted();
    yield letter;
  }
}

/** Dead letters that are dealt with at once; each may hold a megabyte. */
const GROUP = 16;

/** Reads them in groups, since one after the other means waiting for the queue all the time. */
export async function* groupsIn(
  environment: Environment,
  queues: EventQueues,
  read: ReadOptions,
): AsyncGenerator<DeadLetter[]> {
  let group: DeadLetter[] = [];
  for await (const letter of lettersIn(environment, queues, read)) {
    if (group.push(letter) < GROUP) continue;
    yield group;
    group = [];
  }
  if (group.length > 0) yield group;
}

/** Events that dead letters hold together. */
export const eventsIn = (letters: readonly DeadLetter[]) =>
  letters.reduce((sum, { events }) => sum + events.length, 0);

/** @example amount(1, 3) // '1 dead letter (3 events)' */
export function amount(letters: number, events: number): string {
  const some = (count: number, what: string) =>
    `${count.toLocaleString('en')} ${what}${count === 1 ? '' : 's'}`;
  return `${some(letters, 'dead letter')} (${some(events, 'event')})`;
}

/** What is known of a dead letter besides its events. */
export function outline({ id, kind, failedAt, attempts, events, reason }: DeadLetter) {
  return { id, kind, failedAt, attempts, eventCount: events.length, reason };
}

export function heading({ id, failedAt, attempts, events }: DeadLetter): string {
  const some = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`;
  const at = `${failedAt.toISOString().slice(0, 19).replace('T', ' ')} UTC`;
  return printable([id, some(events.length, 'event'), some(attempts, 'attempt'), at].join('  '));
}

/** Text that anybody may have made up, on one line and harmless to a terminal. */
export function printable(text: string): string {
  return text.replaceAll(/[\r\n\t]+/g, ' ').replaceAll(/\p{Cc}/gu, '\uFFFD');
}

/** As much of a text as a line of the terminal has room for. */
export function fitting(text: string, indent: number): string {
  const line = printable(text);
  const columns = process.stdout.isTTY ? process.stdout.columns - indent : Infinity;
  return line.length <= columns ? line : `${line.slice(0, Math.max(20, columns - 1))}…`;
}

/** Writes to standard output as fast as that is read; false if nobody reads it any more. */
export function write(text: string): Promise<boolean> {
  return new Promise((resolve) => process.stdout.write(text, (error) => resolve(!error)));
}
