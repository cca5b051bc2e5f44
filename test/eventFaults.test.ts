import { expect, it } from 'vitest';

import { InvalidEventError } from '../src/errors.ts';
import { encodeEvent } from '../src/queues/eventEncoding.ts';
import type { EventKind } from '../src/queues/events.ts';
import { eventId, sample } from './support/events.ts';

function refusal(kind: EventKind, changes: Record<string, unknown>): InvalidEventError {
  try {
    encodeEvent(kind, { ...sample(kind, 1), ...changes });
  } catch (error) {
    if (error instanceof InvalidEventError) return error;
    throw error;
  }
  throw new Error('the event was taken');
}

it('names every fault of an event in plain words, the unknown fields first', () => {
  const id = eventId(1, 1);
  const error = refusal('memory-access', {
    memoryId: undefined,
    memoryID: 'a secret',
    accessType: '',
    accessedBy: 'x'.repeat(3000),
    context: ['a secret'],
    usefulness: 1.5,
  });
  expect(error.message).toBe(
    `memory-access event ${id} is invalid: memoryID: is not a field; ` +
      'memoryId: is missing, takes a string; accessType: takes at least 1 character; ' +
      'accessedBy: takes at most 2048 characters; context: got a list, takes a string; ' +
      'usefulness: takes at most 1',
  );
  expect(error.field).toBe('memoryID');
});

it.each([
  ['memory-access', { usefulness: NaN }, 'usefulness: got NaN, takes a finite number'],
  ['memory-access', { id: 'x' }, 'id: takes a UUID'],
  ['memory-access', { occurredAt: 'now' }, 'occurredAt: takes an ISO 8601 time with a zone'],
  ['session-event', { sequence: 1.5 }, 'sequence: got a fraction, takes a whole number'],
  ['session-event', { duration: -1 }, 'duration: takes at least 0'],
  ['transition', { newValues: { a: [Infinity] } }, 'newValues: a[0]: got Infinity; takes a finite'],
  ['metrics', { scope: 'team' }, 'scope: got a string, takes session or agent'],
] as const)('%s %o: %s', (kind, changes, text) => {
  expect(refusal(kind, changes).message).toContain(text);
});

it('bounds what it tells of an event that somebody made up', () => {
  const made = Object.fromEntries(
    Array.from({ length: 500 }, (_, n) => [`${n} ${'x'.repeat(500)}`, n]),
  );
  const { message } = refusal('memory-access', made);
  expect(message).toContain('and 490 more');
  expect(message.length).toBeLessThan(1500);
});
