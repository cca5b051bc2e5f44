import fc from 'fast-check';
import { expect, it } from 'vitest';

import { timeOf, timeText } from '../src/queues/eventTime.ts';

it('times are read and written as Date does it, after another of the same minute or day as well', () => {
  const time = fc.date({
    min: new Date('0001-01-01T00:00:00.000Z'),
    max: new Date('9999-12-31T23:59:59.999Z'),
    noInvalidDate: true,
  });
  fc.assert(
    fc.property(fc.array(fc.tuple(time, fc.nat(120_000)), { minLength: 1 }), (times) => {
      for (const [first, later] of times) {
        for (const ms of [first.getTime(), first.getTime() + later]) {
          const text = new Date(ms).toISOString();
          if (text.length !== 24) continue; // the year 10,000 is longer
          expect(timeOf(text)).toBe(ms);
          expect(timeText(ms)).toBe(text);
        }
      }
    }),
  );
});
