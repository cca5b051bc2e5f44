import { setTimeout as sleep } from 'node:timers/promises';

import { pino } from 'pino';
import { expect, it } from 'vitest';

import { Closer } from '../src/closer.ts';

const log = pino({ level: 'silent' });

it('closes in reverse order, once, whatever fails', async () => {
  const closed: string[] = [];
  const closer = new Closer(log);
  closer.add('first', async () => closed.push('first'));
  closer.add('second', () => {
    closed.push('second');
    return Promise.reject(new Error('no'));
  });
  closer.add('third', async () => {
    await sleep(20);
    closed.push('third');
  });
  await Promise.all([closer.close(1000), closer.close(1000)]);
  expect(closed).toEqual(['third', 'second', 'first']);
});

it('ends at the deadline, however many hang, and forces each of them', async () => {
  const forced: number[] = [];
  const closer = new Closer(log);
  const hang = () => new Promise(() => {});
  for (let n = 0; n < 8; n++) {
    closer.add(`hung ${n}`, hang, () => {
      forced.push(n);
      return hang();
    });
  }
  const since = performance.now();
  await closer.close(800);
  expect(performance.now() - since).toBeGreaterThan(700);
  expect(performance.now() - since).toBeLessThan(1200);
  expect(forced).toEqual([7, 6, 5, 4, 3, 2, 1, 0]);
});
