import { distance, NO_SPAN, overlap, widen, type Span } from '../queues/rank.ts';
import { rowsOf, type Piece } from './batch.ts';

/** Events that wait to be written. */
export interface Waiting extends Piece {
  /** Writes that were begun with younger events while these were the oldest. */
  passed: number;
}

/** What one write takes at most. */
export interface WriteLimits {
  maxRows: number;
  /** Of JSON; one larger event is written alone. */
  maxBytes: number;
}

/** Writes that may be begun with younger events while the oldest have to wait for one under way. */
const MAX_PASSED = 4;

/**
 * Chooses what is written next: the oldest, and others of neighbouring ranks before those that are
 * farther off. A write takes all that waits until it is half full, and then no others than near ones
 * (see `Rank`).
 *
 * While a write is under way another one begins only with events that it has no memory in common
 * with, and only if they fill half a write: others it would wait for, and small writes that
 * are made at once cost more than a larger one afterwards.
 *
 * @param pending - in the order of their age
 * @param underWay - the spans of the writes that are being made
 * @returns nothing if it is better to wait for one of them
 */
export function choose<Each extends Waiting>(
  pending: readonly Each[],
  underWay: readonly Span[],
  { maxRows, maxBytes }: WriteLimits,
): Each[] {
  const free = pending.filter(({ events }) => !underWay.some((span) => overlap(span, events.span)));
  const [oldest, lead] = [pending[0], free[0]];
  if (!oldest || !lead) return [];
  if (underWay.length > 0) {
    if (rowsOf(free) * 2 < maxRows) return [];
    if (lead !== oldest && oldest.passed++ === MAX_PASSED) {
      oldest.passed = MAX_PASSED;
      return [];
    }
  }
  const away = (piece: Each) => distance(lead.events.span, piece.events.span);
  const chosen: Each[] = [];
  let [rows, bytes] = [0, 0];
  // The sort keeps the order of what is equally far, so the oldest comes first.
  for (const piece of free.toSorted((a, b) => away(a) - away(b))) {
    if (rows * 2 >= maxRows && away(piece) > 0) break;
    rows += piece.to - piece.from;
    bytes += piece.events.bytes;
    if (chosen.length > 0 && (rows > maxRows || bytes > maxBytes)) break;
    chosen.push(piece);
  }
  return chosen;
}

export const spanOf = (pieces: readonly Piece[]): Span =>
  pieces.reduce((span, { events }) => widen(span, events.span), NO_SPAN);
