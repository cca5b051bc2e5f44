import { expect, it } from 'vitest';

import { encodeEvent } from '../src/queues/eventEncoding.ts';
import { rankOf } from '../src/queues/rank.ts';
import { choose, type Waiting } from '../src/workers/selection.ts';
import { NO_PRODUCER } from '../src/ledger/ledger.ts';
import { listOf, sample } from './support/events.ts';

/** Memories in the order of their ranks. */
const MEMORIES = Array.from({ length: 400 }, (_, n) => `memory-${n}`).toSorted(
  (a, b) => rankOf('memory-access', { memoryId: a }) - rankOf('memory-access', { memoryId: b }),
);

let next = 0;
const accessTo = (memoryId: string) =>
  encodeEvent('memory-access', { ...sample('memory-access', next++), memoryId });

/** Ten accesses to as many of the memories from `first` on, of which each is `step` after the one before. */
const job = (first: number, step = 1): Waiting => ({
  events: listOf(
    'memory-access',
    Array.from({ length: 10 }, (_, n) => accessTo(MEMORIES[first + n * step]!)),
  ),
  from: 0,
  to: 10,
  producer: NO_PRODUCER,
  passed: 0,
});

const transitions = (): Waiting => ({
  ...job(0),
  events: listOf(
    'transition',
    Array.from({ length: 10 }, () => encodeEvent('transition', sample('transition', next++))),
  ),
});

const limits = (maxRows: number) => ({ maxRows, maxBytes: 1024 * 1024 });
const span = (piece: Waiting) => piece.events.span;

it('takes all that waits until a write is half full, the oldest first', () => {
  const pending = [job(100), job(0), job(390), job(0, 40)];
  const chosen = choose(pending, [], limits(80));
  expect(chosen).toHaveLength(4);
  expect(chosen[0]).toBe(pending[0]);
});

it('takes those of the same memories first, and others only until a write is half full', () => {
  const near = [job(100), job(101), job(102)];
  const [far, farther] = [job(150), job(300)];
  const pending = [near[0]!, farther, near[1]!, far, near[2]!];
  expect(choose(pending, [], limits(40))).toEqual(near);
  expect(choose(pending, [], limits(80))).toEqual([...near, far]);
});

it('takes what has no rank, or every rank, in the order of its age, until a write is full', () => {
  for (const pending of [
    Array.from({ length: 5 }, transitions),
    [0, 1, 2, 3].map((n) => job(n, 40)),
  ]) {
    expect(choose(pending, [], limits(30))).toEqual(pending.slice(0, 3));
  }
});

it('takes one that is larger than a write by itself', () => {
  const pending = [job(0), job(1)];
  expect(choose(pending, [], limits(5))).toEqual([pending[0]]);
  expect(choose(pending, [], { maxRows: 100, maxBytes: 10 })).toEqual([pending[0]]);
});

it('begins a second write with other memories alone, and only if they fill half of one', () => {
  const underWay = [span(job(100))];
  const [same, other, another] = [job(105), job(200), job(0)];
  expect(choose([same, other, another], underWay, limits(40))).toEqual([other, another]);
  expect(choose([same, other], underWay, limits(40))).toEqual([]);
  expect(choose([same, job(109), job(91)], underWay, limits(20))).toEqual([]);
  expect(choose([transitions(), transitions()], [span(transitions())], limits(20))).toEqual([]);
});

it('passes the oldest over four times, and then waits for what they wait for', () => {
  const oldest = job(0, 40); // all memories
  const underWay = [span(job(100))];
  for (let time = 1; time <= 4; time++) {
    const other = job(200);
    expect(choose([oldest, other], underWay, limits(20))).toEqual([other]);
  }
  for (let time = 1; time <= 3; time++) {
    expect(choose([oldest, job(200)], underWay, limits(20))).toEqual([]);
  }
  expect(choose([oldest, job(200)], [], limits(20))[0]).toBe(oldest);
});
