import fc from 'fast-check';
import { expect, it } from 'vitest';

import { utcMs, utcText } from '../src/queues/utc.ts';

const FIRST = Date.parse('0001-01-01T00:00:00.000Z');
const LAST = Date.parse('9999-12-31T23:59:59.999Z');

/** Times that are close to each other, or far apart. */
const times = fc
  .tuple(fc.integer({ min: FIRST, max: LAST }), fc.array(fc.integer({ min: -70_000, max: 70_000 })))
  .map(([at, steps]) => [at, ...steps.map((step) => Math.min(LAST, Math.max(FIRST, at + step)))]);

it('times are written and read as Date does it', () => {
  fc.assert(
    fc.property(times, (all) => {
      for (const at of all) {
        expect(utcText(at)).toBe(new Date(at).toISOString());
        expect(utcMs(utcText(at))).toBe(at);
      }
    }),
  );
});

it('what is written in another way is read as Date does it', () => {
  for (const text of [
    '2024-02-03T04:05:06Z',
    '2024-02-03T04:05:06.007+02:00',
    '2024-02-03T04:05:06.0078Z',
    '2024-02-03T04:05:06.1+00:0',
    '2024-02-03T04:05:06.1+02',
  ]) {
    utcMs('2024-02-03T04:05:00.000Z');
    expect(utcMs(text)).toBe(Date.parse(text));
  }
});
