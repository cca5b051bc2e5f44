import { expect, it } from 'vitest';

import { CHUNK_ROWS, firstChunkRows, nextChunkRows } from '../../src/backfill/tuner.ts';

/** Sizes of the first chunks where a row takes so long. */
function sizes(
  msPerRow: (chunk: number) => number,
  chunks = 10,
  from = CHUNK_ROWS.first,
): number[] {
  const found = [from];
  for (let chunk = 0; chunk < chunks; chunk++) {
    const rows = found[chunk] as number;
    found.push(nextChunkRows(rows, rows * msPerRow(chunk), 500));
  }
  return found;
}

it.each([
  ['narrow rows (0.03 ms)', 0.03, 16_667],
  ['wide rows (10 ms)', 10, 50],
  ['rows of the first size', 0.5, 1000],
  ['rows that take for ever (1 s)', 1000, CHUNK_ROWS.min],
])('settles on the target within 10 chunks: %s', (_, msPerRow, expected) => {
  const settled = sizes(() => msPerRow).slice(8);
  for (const rows of settled) expect(rows / expected).toBeCloseTo(1, 1);
});

it('grows by half at most, whatever the last chunk took', () => {
  const found = sizes(() => 0);
  found
    .slice(1)
    .forEach((rows, index) => expect(rows / (found[index] as number)).toBeLessThanOrEqual(1.51));
  expect(sizes(() => 0, 20).at(-1)).toBe(CHUNK_ROWS.max);
});

it('is cut to a tenth at once when a chunk takes more than five times the target', () => {
  expect(nextChunkRows(10_000, 2501, 500)).toBe(1000);
  expect(nextChunkRows(10_000, 2500, 500)).toBe(2000);
});

it('follows a table whose rows become wide half way', () => {
  const found = sizes((chunk) => (chunk < 10 ? 0.03 : 10), 20);
  expect(found[10]).toBeGreaterThan(15_000);
  expect(found[20]).toBe(50);
});

it('begins with what fits into memory', () => {
  expect([0, 100, 100_000, 1e9].map(firstChunkRows)).toEqual([1000, 1000, 167, 10]);
});
