import fc from 'fast-check';
import { validate, version } from 'uuid';
import { afterEach, expect, it, vi } from 'vitest';

import { toStorable } from '../src/json.ts';
import {
  encodeEvent,
  encodeNewEvent,
  encodeOwnEvent,
  type EncodedEvent,
} from '../src/queues/eventEncoding.ts';
import { EVENT_KINDS, EVENT_SCHEMAS, type EventKind } from '../src/queues/events.ts';
import { newIdentity } from '../src/queues/identity.ts';
import { SAMPLES } from './support/events.ts';

const IDS = 20_000;

/** The time in an id, in milliseconds since 1970. */
const timeOf = (id: string) => parseInt(id.slice(0, 8) + id.slice(9, 13), 16);

afterEach(() => vi.useRealTimers());

it('ids of one process are UUIDv7, all different and ascending', () => {
  const before = Date.now();
  const ids = Array.from({ length: IDS }, () => newIdentity().id);
  expect(ids.every((id) => validate(id) && version(id) === 7)).toBe(true);
  expect(new Set(ids).size).toBe(IDS);
  expect(ids.toSorted((a, b) => (a < b ? -1 : 1))).toEqual(ids);
  expect(timeOf(ids[0]!)).toBeGreaterThanOrEqual(before);
  expect(timeOf(ids.at(-1)!)).toBeLessThanOrEqual(Date.now());
});

it('no two ids end alike, of whichever process they are', async () => {
  const ids = Array.from({ length: IDS }, () => newIdentity().id);
  vi.resetModules(); // as in another process
  const other = await import('../src/queues/identity.ts');
  ids.push(...Array.from({ length: IDS }, () => other.newIdentity().id));
  expect(new Set(ids.map((id) => id.slice(19))).size).toBe(2 * IDS);
});

it('they ascend when a millisecond has more than they can count, and when the clock goes back', () => {
  vi.useFakeTimers({ now: Date.now() + 60_000 }); // the clock stands still
  const many = Array.from({ length: 10_000 }, () => newIdentity());
  vi.setSystemTime(Date.now() - 30_000);
  const later = newIdentity();
  const ids = [...many, later].map(({ id }) => id);
  expect(ids.toSorted((a, b) => (a < b ? -1 : 1))).toEqual(ids);
  expect(new Set(ids).size).toBe(ids.length);
  // What is told of the event is the clock's, whatever the id says.
  expect(new Set(many.map(({ at }) => at)).size).toBe(1);
  expect(later.at).toBe(Date.now());
  expect(later.occurredAt).toBe(new Date().toISOString());
});

it('id and time are those of the clock, wherever a second or a period of the ids begins', () => {
  // Later than all other tests here, and a multiple of 4,096 ms and of a second.
  const period = 4096 * 1000 * Math.ceil((Date.now() + 3_600_000) / 4_096_000);
  const steps = [-4097, -4096, -1001, -1000, -999, -1, 0, 1, 9, 10, 99, 100, 999, 1000, 4095, 4096];
  vi.useFakeTimers();
  for (const step of steps) {
    vi.setSystemTime(period + step);
    const { id, at, occurredAt } = newIdentity();
    expect([timeOf(id), at, occurredAt]).toEqual([
      period + step,
      period + step,
      new Date(period + step).toISOString(),
    ]);
  }
});

const anything = fc.jsonValue({ stringUnit: 'binary' });

/** Right events, and wrong ones of every sort. */
const events = fc
  .constantFrom(...EVENT_KINDS)
  .chain((kind) =>
    fc.tuple(
      fc.constant(kind),
      fc.nat(20),
      fc.oneof(
        fc.constant({}),
        fc.dictionary(
          fc.constantFrom(...Object.keys(SAMPLES[kind](1)), 'x', '__proto__'),
          anything,
          { maxKeys: 2 },
        ),
      ),
    ),
  )
  .map(([kind, n, changes]): [EventKind, object] => [kind, { ...SAMPLES[kind](n), ...changes }]);

const identities = fc.record({
  id: fc.oneof(
    { arbitrary: fc.uuid(), weight: 9 },
    fc.uuid().map((id) => id.toUpperCase()),
    fc.constantFrom('00000000-0000-0000-0000-000000000000', 'a', ''),
  ),
  occurredAt: fc.oneof(
    {
      arbitrary: fc
        .date({ min: new Date('0001-01-01'), max: new Date('9999-12-31'), noInvalidDate: true })
        .map((date) => date.toISOString()),
      weight: 9,
    },
    fc.constantFrom(
      '2024-05-15T15:00:00+02:00',
      '2024-02-30T15:00:00.000Z',
      '2023-02-29T15:00:00.000Z',
      '2024-02-29T15:00:00.000Z',
      '0000-05-15T15:00:00.000Z',
      '2024-05-15T24:00:00.000Z',
      '2024-05-15 15:00',
    ),
  ),
});

/** What an encoder makes of an event, or that it refuses it, and with which words. */
function outcome(encode: () => EncodedEvent) {
  try {
    const { json, bytes, rank: _, ...encoded } = encode();
    return {
      ...encoded,
      isSized: bytes === Buffer.byteLength(json),
      event: JSON.parse(json) as unknown,
    };
  } catch (error) {
    return (error as Error).message;
  }
}

it('an event is taken, changed and refused as its schema has it', () => {
  let taken = 0;
  fc.assert(
    fc.property(events, identities, ([kind, event], identity) => {
      const whole = { ...event, ...identity };
      const found = outcome(() => encodeEvent(kind, whole));
      const parsed = EVENT_SCHEMAS[kind].safeParse(whole);
      if (!parsed.success) {
        expect(found).toMatch(/ is invalid: /);
        return;
      }
      const { value, replaced } = toStorable(parsed.data);
      const { id, occurredAt } = value;
      taken++;
      expect(found).toEqual({
        id,
        occurredAt: Date.parse(occurredAt),
        replaced,
        isSized: true,
        event: JSON.parse(JSON.stringify(value)),
      });
    }),
    { numRuns: 5000 },
  );
  expect(taken).toBeGreaterThan(500);
});

it('a new event that is right at first sight is encoded as one that brings its id and time', () => {
  let taken = 0;
  fc.assert(
    fc.property(events, ([kind, event]) => {
      const encoded = encodeNewEvent(kind, event);
      if (!encoded) return;
      taken++;
      const identity = { id: encoded.id, occurredAt: new Date(encoded.occurredAt).toISOString() };
      expect(outcome(() => encoded)).toEqual(
        outcome(() => encodeEvent(kind, { ...event, ...identity })),
      );
    }),
    { numRuns: 2000 },
  );
  expect(taken).toBeGreaterThan(200);
});

it('an event of its own id and time is encoded, or refused, with a Date as with its text', () => {
  const dates = fc.date({ min: new Date('-000500-01-01'), max: new Date('+012000-01-01') });
  fc.assert(
    fc.property(events, identities, dates, ([kind, event], { id, occurredAt }, date) => {
      const texts = [
        occurredAt,
        Number.isNaN(date.getTime()) ? 'Invalid Date' : date.toISOString(),
      ];
      for (const [n, time] of [occurredAt, date].entries()) {
        expect(outcome(() => encodeOwnEvent(kind, { ...event, id, occurredAt: time }))).toEqual(
          outcome(() => encodeEvent(kind, { ...event, id, occurredAt: texts[n] })),
        );
      }
    }),
    { numRuns: 2000 },
  );
});

it('an event is written with all of its members', () => {
  const metric = { metricType: 'latency', metricValue: 0.5, metadata: { of: 'model' } };
  const [session, agent] = EVENT_SCHEMAS.metrics.options;
  const full = [
    [
      'memory-access',
      EVENT_SCHEMAS['memory-access'],
      {
        memoryId: 'm',
        accessType: 'read',
        accessedBy: 'a',
        accessorType: 'agent',
        context: 'c',
        usefulness: 1,
      },
    ],
    [
      'transition',
      EVENT_SCHEMAS.transition,
      {
        stateId: 's',
        triggerType: 'user_action',
        triggerId: 't',
        transitionData: [1],
        previousValues: {},
        newValues: 'v',
      },
    ],
    ['metrics', session, { scope: 'session', sessionId: 's', ...metric }],
    ['metrics', agent, { scope: 'agent', agentId: 'a', timeframe: 'daily', ...metric }],
    [
      'session-event',
      EVENT_SCHEMAS['session-event'],
      { sessionId: 's', eventType: 'e', eventData: 1, sequence: 2, duration: 3 },
    ],
  ] as const;
  for (const [kind, { shape }, event] of full) {
    const { id, occurredAt } = newIdentity();
    expect(Object.keys({ ...event, id, occurredAt }).toSorted()).toEqual(
      Object.keys(shape).toSorted(),
    );
    for (const { json } of [
      encodeOwnEvent(kind, { ...event, id, occurredAt }),
      encodeOwnEvent(kind, { ...event, id, occurredAt: new Date(occurredAt) }),
    ]) {
      expect(JSON.parse(json)).toEqual({ ...event, id, occurredAt });
    }
    expect(JSON.parse(encodeNewEvent(kind, event)!.json)).toMatchObject(event);
  }
});

it('what is not written as JSON is not taken for a field', () => {
  const { sessionId, ...rest } = SAMPLES['session-event'](0);
  const hidden = Object.defineProperty({ ...rest }, 'sessionId', { value: sessionId });
  const inherited = Object.assign(Object.create({ sessionId }) as object, rest);
  const { id, occurredAt } = newIdentity();
  for (const event of [hidden, inherited]) {
    expect(encodeNewEvent('session-event', event)).toBeUndefined();
    const encoded = outcome(() => encodeOwnEvent('session-event', { ...event, id, occurredAt }));
    expect(encoded).toMatch(/sessionId: is missing/);
  }
  const asText = { value: () => 'text' };
  const otherwise = Object.defineProperty({ ...rest, sessionId }, 'toJSON', asText);
  expect(encodeNewEvent('session-event', otherwise)).toBeUndefined();
});

it('what is written as nothing is no value of a required field', () => {
  const event = SAMPLES.transition(0);
  for (const written of [null, undefined]) {
    const nothing = { toJSON: () => written };
    const encode = () =>
      encodeOwnEvent('transition', {
        ...event,
        ...newIdentity(),
        transitionData: nothing,
      } as never);
    expect(encodeNewEvent('transition', { ...event, transitionData: nothing })).toBeUndefined();
    expect(encode).toThrow(/transitionData: is required/);
  }
});

it('what a library has given to every object is neither a field nor a fault', () => {
  const { sessionId, ...rest } = SAMPLES['session-event'](0);
  const { id, occurredAt } = newIdentity();
  const encode = (event: object) =>
    outcome(() => encodeOwnEvent('session-event', { ...event, id, occurredAt }));
  const how = { enumerable: true, configurable: true, writable: true };
  const give = (name: string, value: unknown) =>
    Reflect.defineProperty(Object.prototype, name, { ...how, value });
  const right = encode({ ...rest, sessionId });
  try {
    give('toYaml', () => '');
    give('duration', 5);
    const { duration: _, ...brief } = { duration: 0, ...rest, sessionId };
    for (const encoded of [
      encodeNewEvent('session-event', brief),
      encodeOwnEvent('session-event', { ...brief, id, occurredAt }),
    ]) {
      expect(encoded!.json).not.toContain('duration');
    }
    expect(encode({ ...rest, sessionId })).toEqual(right);
    give('sessionId', sessionId);
    expect(encodeNewEvent('session-event', rest)).toBeUndefined();
  } finally {
    Reflect.deleteProperty(Object.prototype, 'toYaml');
    Reflect.deleteProperty(Object.prototype, 'duration');
    Reflect.deleteProperty(Object.prototype, 'sessionId');
  }
});
