import { expect, it } from 'vitest';

import { openEnvelope, packEnvelope } from '../src/queues/envelope.ts';
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
