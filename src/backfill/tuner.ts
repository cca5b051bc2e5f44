/** Rows in a chunk: at least, at most, and at the start. */
export const CHUNK_ROWS = { min: 10, max: 100_000, first: 1000 };

/** Bytes in the first chunk, about: rows may be wide, and all of a chunk may have to be in memory. */
const FIRST_CHUNK_BYTES = 16 * 1024 * 1024;

/** The size of the first chunk, before anything is known but the width of the rows. */
export function firstChunkRows(bytesPerRow: number): number {
  const fitting = Math.floor(FIRST_CHUNK_BYTES / Math.max(1, bytesPerRow));
  return Math.min(CHUNK_ROWS.first, Math.max(CHUNK_ROWS.min, fitting));
}

/** Growth from one chunk to the next at most. */
const MAX_GROWTH = 1.5;

/** A chunk that takes so many times the target is cut to a tenth at once. */
const ALARM = 5;

/**
 * The size of the next chunk from what the last one took. It aims at the target, grows gently,
 * since a chunk that is too large holds its locks for long, and shrinks as far as it has to.
 *
 * @param rows - rows of the last chunk
 * @param tookMs - milliseconds that it took
 * @param targetMs - milliseconds that a chunk should take
 *
 * @example nextChunkRows(1000, 250, 500) // 1500: twice as many would be right, half as many more is allowed
 */
export function nextChunkRows(rows: number, tookMs: number, targetMs: number): number {
  const ideal = (rows * targetMs) / Math.max(tookMs, 1);
  const next = tookMs > ALARM * targetMs ? rows / 10 : Math.min(ideal, rows * MAX_GROWTH);
  return Math.round(Math.min(CHUNK_ROWS.max, Math.max(CHUNK_ROWS.min, next)));
}
