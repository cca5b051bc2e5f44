import type { EventKind } from './events.ts';

/**
 * A place among all memories, from 0 to 2^31 - 1, which takes no object of its own, the same in every process.
 *
 * An access changes a row, that of its memory, which others want to change as well. So producers that
 * have many accesses pack those of neighbouring ranks together, and a worker writes such jobs together:
 * a write then changes each of few memories once, for many accesses, and two writes at once change
 * different ones. Nothing but speed depends on it.
 */
export type Rank = number;

/** The least and the greatest rank of some events. */
export interface Span {
  readonly from: Rank;
  readonly to: Rank;
}

/** The place of an event: of its memory, for an access; all others, which change no row, have the same. */
export const rankOf = (kind: EventKind, event: object): Rank =>
  kind === 'memory-access' ? hash((event as { memoryId: string }).memoryId) : 0;

/** FNV-1a of UTF-16 code units, and the end of MurmurHash3, for ids that differ in their last digits. */
function hash(text: string): Rank {
  let bits = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) bits = Math.imul(bits ^ text.charCodeAt(at), 0x01000193);
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 1;
}

/** The span of no events, which `widen` makes one of some. */
export const NO_SPAN: Span = { from: Infinity, to: -Infinity };

export const widen = (span: Span, { from, to }: Span): Span => ({
  from: Math.min(span.from, from),
  to: Math.max(span.to, to),
});

export const overlap = (a: Span, b: Span): boolean => a.from <= b.to && b.from <= a.to;

/** How far the middle of `other` is from `span`: 0 if it lies within. */
export function distance(span: Span, other: Span): number {
  const middle = (other.from + other.to) / 2;
  return Math.max(span.from - middle, middle - span.to, 0);
}
