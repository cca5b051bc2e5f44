import { randomFillSync } from 'node:crypto';

import { timeText } from './eventTime.ts';

/** What sets an event apart: who it is, and when it occurred. */
export interface Identity {
  /** UUIDv7. Of one process, each is greater than the one before it. */
  id: string;
  /** Milliseconds since 1970. */
  at: number;
  /** `at` in ISO 8601, in UTC. */
  occurredAt: string;
}

/** What 12 bits count: the ids of one millisecond at most. */
const COUNT = 4096;

/** Three hexadecimal digits of each number of 12 bits. */
const HEX = Array.from({ length: COUNT }, (_, number) => number.toString(16).padStart(3, '0'));

// A new millisecond is a hundredth of the calls of a busy agent, and their slowest: what its texts
// begin with is kept for as long as it is the same.

/** The millisecond of the latest id, its first 36 bits and all of its 52 as text, and how many ids it has. */
let idMs = 0;
let idPeriod = -1;
let periodText = '';
let idPrefix = '';
let ids = 0;

/** The latest time that an event was given. */
let at = 0;
let occurredAt = '';

/** Endings of ids that are written at a time. Many would make the call that writes them a slow one. */
const ENDINGS = 16;

/** `-8123-456789abcdef`: the variant and 62 random bits. */
const ENDING_LENGTH = 18;

/** Of 512 endings, 8 bytes each. */
const random = Buffer.allocUnsafe(4096);
let usedRandom = random.length;

const written = Buffer.allocUnsafe(ENDINGS * ENDING_LENGTH);
let endings = '';
let usedEndings = ENDINGS;

const DIGITS = Buffer.from('0123456789abcdef');
const DASH = 0x2d;

/** One text for all of them, of which each id takes a slice: a text of many pieces costs more later. */
function writeEndings(): void {
  if (usedRandom === random.length) {
    randomFillSync(random);
    usedRandom = 0;
  }
  for (let n = 0, to = 0; n < ENDINGS; n++) {
    random[usedRandom] = ((random[usedRandom] as number) & 0x3f) | 0x80;
    for (let byte = 0; byte < 8; byte++) {
      const bits = random[usedRandom++] as number;
      if (byte === 0 || byte === 2) written[to++] = DASH;
      written[to++] = DIGITS[bits >> 4] as number;
      written[to++] = DIGITS[bits & 15] as number;
    }
  }
  endings = written.toString('latin1');
  usedEndings = 0;
}

/**
 * Makes what an event that occurs now is given. It is called within every `emit`, and several times
 * in most milliseconds, so the text of a millisecond is made once.
 *
 * The id is that of RFC 9562, section 5.7: 48 bits of time, 12 bits that count within a
 * millisecond (section 6.2, method 1), and 62 random bits. Where the clock goes back, or a
 * millisecond has no number left, the ids' own time goes on from where it was.
 */
export function newIdentity(): Identity {
  const now = Date.now();
  if (now !== at) {
    at = now;
    occurredAt = timeText(now);
  }
  if (now > idMs || ids === COUNT) startIds(Math.max(now, idMs + 1));
  if (usedEndings === ENDINGS) writeEndings();
  const start = ENDING_LENGTH * usedEndings++;
  const id = idPrefix + HEX[ids++] + endings.slice(start, start + ENDING_LENGTH);
  return { id, at, occurredAt };
}

function startIds(ms: number): void {
  const inPeriod = ms % COUNT;
  if (ms - inPeriod !== idPeriod) {
    idPeriod = ms - inPeriod;
    const text = (idPeriod / COUNT).toString(16).padStart(9, '0');
    periodText = `${text.slice(0, 8)}-${text.slice(8)}`;
  }
  idMs = ms;
  idPrefix = `${periodText}${HEX[inPeriod]}-7`;
  ids = 0;
}
