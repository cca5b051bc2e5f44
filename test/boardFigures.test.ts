import { readFileSync } from 'node:fs';

import { expect, it } from 'vitest';

import { expose } from '../src/board/exposition.ts';
import { figuresOf, increase, mean, quantile, sum } from '../src/board/figures.ts';
import { History, type Point } from '../src/board/history.ts';
import { duration, html, number } from '../src/board/html.ts';
import { renderSections } from '../src/board/overview.ts';
import { StallWatch, STALL_MS } from '../src/board/stall.ts';
import type { Sight } from '../src/board/watch.ts';
import type { Totals } from '../src/ledger/totals.ts';
import { createWorkerMetrics, METRIC } from '../src/metrics/workerMetrics.ts';
import { EVENT_KINDS, TASK_QUEUES } from '../src/queues/catalogue.ts';

const emptySight = (): Sight => ({
  at: 0,
  checks: { database: null, queue: null, migrations: null, commits: null },
  queues: [],
  totals: null,
  reports: [],
  reportsAt: 0,
  spoolBytes: 0,
  backfills: [],
  deadLetters: { groups: [], unread: 0 },
  recount: null,
});

it('a counter that was not read yet is not exposed: as 0 it would look like a reset', async () => {
  const sight = emptySight();
  const figures = { accepted: 7, dropped: 6, committed: 5, duplicates: 4, discarded: 3 };
  const totals = Object.fromEntries(EVENT_KINDS.map((kind) => [kind, figures])) as Totals;
  expect(await expose(sight)).not.toMatch(/^annals_events_/m);
  expect(await expose({ ...sight, totals })).toMatch(/^annals_events_dropped_total.* 6$/m);
});

/** What a worker reports after batches of these lags, in seconds. */
async function report(worker: string, ...batches: number[][]) {
  const { hooks, snapshot } = createWorkerMetrics(worker);
  for (const lags of batches) {
    hooks.onBatch?.('metrics', {
      rows: lags.length,
      jobs: 1,
      milliseconds: 100,
      occurredAt: lags.map((seconds) => Date.now() - seconds * 1000),
    });
  }
  return { worker, metrics: JSON.parse(JSON.stringify(await snapshot())), ageMs: 0 };
}

it('tells what workers did between two moments, restarts and new ones included', async () => {
  const [a1, b1] = await Promise.all([report('a:1', [1], [1]), report('b:1', [1, 1, 1])]);
  const [a2, b2, c2] = await Promise.all([
    report('a:1', [1], [1], [1, 1]), // went on: 2 more
    report('b:1', [1]), // began anew: 1
    report('c:1', [1, 1, 1, 1]), // is new: 4
  ]);
  const added = increase(figuresOf([a1, b1]), figuresOf([a2, b2, c2]));
  expect(sum(added, `${METRIC.lag}_count`, { kind: 'metrics' })).toBe(7);
  expect(sum(added, `${METRIC.lag}_count`, { kind: 'transition' })).toBe(0);
  expect(mean(added, METRIC.batch)).toBeCloseTo(7 / 3);
});

it('has every series of dead letters from the start: their first is an increase', async () => {
  const none = figuresOf([await report('a:1')]);
  const series = [...none.values()].filter(({ name }) => name === METRIC.deadLettered);
  expect(series.map(({ value }) => value)).toEqual(Array.from({ length: 16 }, () => 0));
  const { hooks, snapshot } = createWorkerMetrics('a:1');
  hooks.onDeadLetter?.('metrics', { invalid: 7 });
  const some = figuresOf([{ worker: 'a:1', metrics: await snapshot(), ageMs: 0 }]);
  expect(some.size).toBe(none.size);
  expect(sum(increase(none, some), METRIC.deadLettered, { cause: 'invalid' })).toBe(7);
});

it('tells quantiles within the bucket that they fall in', async () => {
  const lags = Array.from({ length: 100 }, (_, n) => (n < 60 ? 0.2 : 8));
  const added = increase(new Map(), figuresOf([await report('a:1', lags)]));
  expect(quantile(added, METRIC.lag, 0.5)).toBeGreaterThan(0.1);
  expect(quantile(added, METRIC.lag, 0.5)).toBeLessThan(0.25);
  expect(quantile(added, METRIC.lag, 0.95)).toBeGreaterThan(5);
  expect(quantile(added, METRIC.lag, 0.95)).toBeLessThan(10);
  const ancient = increase(new Map(), figuresOf([await report('a:1', [1e9])]));
  expect(quantile(ancient, METRIC.lag, 0.5)).toBe(86_400);
  expect(quantile(increase(new Map(), new Map()), METRIC.lag, 0.5)).toBeNull();
});

it('says of a lag beyond the last bucket that it is longer, not that it is as long', async () => {
  const sight = emptySight();
  const point = (lag: number): Point => ({
    at: 1,
    rate: { 'memory-access': 0, transition: 0, metrics: 0, 'session-event': 0 },
    lagHalf: 1,
    lagMost: lag,
    batch: 1,
    writeMost: lag,
    depth: {},
  });
  const ancient = increase(new Map(), figuresOf([await report('a:1', [1e9])]));
  const beyond = quantile(ancient, METRIC.lag, 0.95) ?? 0;
  const { text } = renderSections(sight, point(beyond)).tiles;
  expect(text).toContain('<b>&gt; 1 d</b><span>for 95 %, 1 s for half');
  expect(text).toContain('&gt; 10 s a write');
  expect(renderSections(sight, point(9)).tiles.text).toContain('<b>9 s</b>');
});

it('shows no rate that is of the past, and goes on when the clock is set back', () => {
  const history = new History();
  const figures = { accepted: 0, dropped: 0, committed: 0, duplicates: 0, discarded: 0 };
  const add = (at: number) => {
    const totals = Object.fromEntries(EVENT_KINDS.map((kind) => [kind, figures])) as Totals;
    history.add(at, totals, new Map(), []);
  };
  for (const at of [100_000, 102_000]) add(at);
  expect(history.latest(102_500)?.at).toBe(102_000);
  expect(history.latest(110_000)).toBeUndefined();
  for (const at of [50_000, 52_000]) add(at);
  expect(history.since(0).map(({ at }) => at)).toEqual([52_000]);
});

it('has a colour for every line of a chart, in light and dark', () => {
  const css = readFileSync(new URL('../assets/board/board.css', import.meta.url), 'utf8');
  for (let n = 1; n <= EVENT_KINDS.length + Object.keys(TASK_QUEUES).length; n++) {
    expect(css.match(new RegExp(`--series-${n}: #`, 'g')), `series ${n}`).toHaveLength(2);
  }
});

it('calls a queue stalled when it has jobs and nothing moves, and only then', () => {
  const queue = { name: 'metrics', waiting: 1, active: 0, delayed: 9, deadLetters: 9, oldestMs: 1 };
  const busy = [{ ...queue, isPaused: false }];
  const watch = new StallWatch();
  expect(watch.look(busy, () => 1, 0)).toEqual([]);
  expect(watch.look(busy, () => 1, STALL_MS - 1)).toEqual([]);
  expect(watch.look(busy, () => 1, STALL_MS)).toEqual(['metrics: 1 jobs and no commit for 6 s']);
  expect(watch.look(busy, () => 2, STALL_MS + 1)).toEqual([]);
  const idle = [{ ...queue, waiting: 0, isPaused: false }];
  const paused = [{ ...queue, isPaused: true }];
  for (const queues of [idle, paused]) {
    expect(watch.look(queues, () => 2, 10 * STALL_MS)).toEqual([]);
    expect(watch.look(queues, () => 2, 20 * STALL_MS)).toEqual([]);
  }
  expect(watch.look(busy, () => 2, 20 * STALL_MS + 1)).toEqual([]);
});

it('escapes what it puts into a page', () => {
  const evil = `<img src=x onerror="alert('&')">`;
  expect(html`<p title="${evil}">${[html`<b>${evil}</b>`]}</p>`.text).toBe(
    '<p title="&lt;img src=x onerror=&quot;alert(&#39;&amp;&#39;)&quot;&gt;">' +
      '<b>&lt;img src=x onerror=&quot;alert(&#39;&amp;&#39;)&quot;&gt;</b></p>',
  );
});

it.each([
  [0.0123, '12 ms'],
  [0.0012, '1.2 ms'],
  [3.44, '3.4 s'],
  [90, '1.5 min'],
  [9000, '2.5 h'],
  [864_000, '10 d'],
  [null, '–'],
])('writes %s seconds as %s', (seconds, text) => expect(duration(seconds)).toBe(text));

it.each([
  [1234.5, '1,235'],
  [12.34, '12.3'],
  [0.046, '0.05'],
  [0, '0'],
])('writes %s as %s', (value, text) => expect(number(value)).toBe(text));
