import { describe, expect, it } from 'vitest';

import { openEnvelope, openText, packEnvelope } from '../src/queues/envelope.ts';
import { encodeEvent } from '../src/queues/eventEncoding.ts';
import { encodedSample } from './support/events.ts';

const open = (text: string) => openEnvelope('metrics', JSON.parse(text));
const ledger = { id: '0190f3b0-0000-7000-8000-000000000001', accepted: 12, dropped: 3 };

it("carries the producer's counts beside the events", () => {
  const opened = open(packEnvelope([encodedSample('metrics', 1)], ledger));
  expect(opened.valid).toHaveLength(1);
  expect(opened.producer).toEqual(ledger);
});

it.each([
  undefined,
  null,
  7,
  'me',
  [],
  {},
  { ...ledger, id: 'me' },
  { ...ledger, accepted: -1 },
  { ...ledger, accepted: 1.5 },
  { ...ledger, dropped: '3' },
  { ...ledger, dropped: undefined },
])('reads the events whatever a foreign producer says of itself: %j', (producer) => {
  const event = JSON.parse(encodedSample('metrics', 1).json);
  const opened = open(JSON.stringify({ v: 1, producer, events: [event] }));
  expect(opened.valid).toHaveLength(1);
  expect(opened.refused).toEqual([]);
  expect(opened.producer).toBeUndefined();
});

describe('the JSON of the events, where the text of the job is at hand', () => {
  const samples = [1, 2, 3].map((n) => encodedSample('metrics', n));
  const events = samples.map(({ json }) => JSON.parse(json));
  const ours = samples.map(({ json }) => json).join(',');
  const spaced = events.map((event) => JSON.stringify(event, null, 1)).join(' ,');
  const opened = (text: string) => openText('metrics', text) ?? open(text);
  const jsonOf = (text: string) => {
    const { valid } = opened(text);
    return valid.json(0, valid.length);
  };
  const { id, accepted, dropped } = ledger;

  it.each([
    ['ours', packEnvelope(samples, ledger), ours],
    ['ours without a producer', packEnvelope(samples), ours],
    [
      'ours, from PostgreSQL',
      `{"v": 1, "events": [${spaced}], "producer": {"id": "${id}", "dropped": ${dropped}, "accepted": ${accepted}}}`,
      spaced,
    ],
    ['without a producer, from PostgreSQL', `{"v": 1, "events": [${spaced}]}`, spaced],
    ['events with spaces', `{"v":1,"events":[${spaced}]}`, spaced],
  ])('is what the job has: %s', (_, text, expected) => {
    expect(jsonOf(text)).toBe(expected);
    expect(opened(text).valid.bytes).toBe(Buffer.byteLength(expected));
  });

  it.each([
    ['an envelope with spaces', `{ "v": 1, "events": [${spaced}] }`],
    ['members in another order', `{"events":[${spaced}],"v":1}`],
    ['reasons of a dead letter', `{"v":1,"events":[${spaced}],"reasons":[]}`],
    ['a foreign member', `{"v":1,"events":[${spaced}],"x":[]}`],
    ['a space at the end', `{"v":1,"events":[${spaced}]} `],
    ['an escape', `{"v":1,"events":[${spaced.replace('"metricType"', '"metric\\u0054ype"')}]}`],
  ])('is our own: %s', (_, text) => expect(jsonOf(text)).toBe(ours));

  it('is our own again once that is not taken, and of a part', () => {
    const { valid } = opened(`{"v":1,"events":[${spaced}]}`);
    expect(valid.json(1, 3)).toBe(
      samples
        .slice(1)
        .map(({ json }) => json)
        .join(','),
    );
    expect(valid.json(0, 3)).toBe(spaced);
    expect(valid.forgetText()).toBe(true);
    expect(valid.forgetText()).toBe(false);
    expect(valid.json(0, 3)).toBe(ours);
  });

  it('is our own where one of the events is refused or has to be changed', () => {
    const shouting = { ...events[1], id: events[1].id.toUpperCase() };
    const text = JSON.stringify({ v: 1, events: [events[0], shouting, { wrong: true }] });
    const { valid, refused } = opened(text);
    expect(refused).toHaveLength(1);
    expect(valid.json(0, valid.length)).toBe(
      [events[0], events[1]].map((event) => encodeEvent('metrics', event).json).join(','),
    );
  });

  it.each([
    ['two lists of events', `{"v":1,"events":[${ours}],"events":[${ours}]}`],
    ['members of an event after the list', `{"v":1,"events":[${ours}],"x":[1]}`],
    ['text after the end', `{"v":1,"events":[${ours}]}]}`],
    ['half of an event', `{"v":1,"events":[${ours.slice(1)}]}`],
    ['no list', `{"v":1,"events":[}]}`],
    ['a count that is no JSON', packEnvelope(samples, ledger).replace(`:${accepted},`, ':007,')],
    [
      'more bytes than an event may have',
      `{"v":1,"events":[${JSON.stringify({ ...events[0], metadata: '€'.repeat(100_000) })}]}`,
    ],
  ])('is not cut out of anything but an envelope: %s', (_, text) => {
    expect(openText('metrics', text)).toBeUndefined();
  });

  it("has the producer's counts beside it", () => {
    expect(openText('metrics', packEnvelope(samples, ledger))?.producer).toEqual(ledger);
    const spread = `{"v": 1, "events": [${spaced}], "producer": {"id": "${id}", "dropped": ${dropped}, "accepted": ${accepted}}}`;
    expect(openText('metrics', spread)?.producer).toEqual(ledger);
    const tooMany = packEnvelope(samples, ledger).replace(`:${accepted},`, `:${'9'.repeat(20)},`);
    expect(openText('metrics', tooMany)).toMatchObject({ refused: [] });
    expect(openText('metrics', tooMany)?.producer).toBeUndefined();
  });

  it('may have more bytes than an event, if none of its events has', () => {
    const [metadata, nested] = ['€'.repeat(2000), [{ a: 1 }, { id: 'x' }]];
    const job = (...all: object[]) =>
      packEnvelope(all.map((event) => ({ json: JSON.stringify(event) })));
    const many = Array.from({ length: 60 }, () => ({ ...events[0], metadata }));
    const large = { ...events[0], metadata: '€'.repeat(100_000) };
    expect(openText('metrics', job(...many))?.valid.length).toBe(60);
    const spaced = many.map((event) => JSON.stringify(event).replace(':', ': ')).join(', ');
    expect(openText('metrics', `{"v": 1, "events": [${spaced}]}`)?.valid.length).toBe(60);
    expect(openText('metrics', job(...many, large))).toBeUndefined();
    expect(openText('metrics', job(large, ...many))).toBeUndefined();
    // What looks like the place between two events need not be one.
    expect(
      openText('metrics', job(...many, { ...events[0], metadata: nested }))?.valid.length,
    ).toBe(61);
    const { id, ...rest } = events[0]!;
    const halves = [{ a: 'x'.repeat(150_000) }, { id: 'x', b: 'x'.repeat(150_000) }];
    expect(
      openText('metrics', job({ ...events[0], metadata: halves }, { ...rest, id })),
    ).toBeUndefined();
  });

  it('has no more events than a worker checks at once', () => {
    const one = { json: JSON.stringify(events[0]) };
    expect(
      openText('metrics', packEnvelope(Array.from({ length: 20_000 }, () => one)))?.valid.length,
    ).toBe(20_000);
    expect(
      openText('metrics', packEnvelope(Array.from({ length: 20_001 }, () => one))),
    ).toBeUndefined();
  });

  it('may be longer in our own words than an event may be', () => {
    const short = `{"v":1,"events":[${ours.replace(/\}$/, `,"metadata":[${Array.from({ length: 40_000 }, () => '1e20').join(',')}]}`)}]}`;
    const { valid } = openText('metrics', short)!;
    expect(valid.forgetText()).toBe(true);
    expect(valid.json(2, 3).length).toBeGreaterThan(256 * 1024);
  });

  it('still gives each event as it came, and its time', () => {
    const { valid } = openText('metrics', packEnvelope(samples))!;
    for (const [index, event] of events.entries()) {
      expect(valid.eventAt(index)).toEqual(event);
      expect(valid.occurredAt(index)).toBe(Date.parse(event.occurredAt));
    }
  });
});
