import { randomFillSync } from 'node:crypto';

/** What sets an event apart: who it is, and when it occurred. */
export interface Identity {
  /** UUIDv7. Of one process, each is greater than the one before it. */
  id: string;
  /** Milliseconds since 1970. */
  at: number;
  /** `at` in ISO 8601, in UTC. */
  occurredAt: string;
}

/** Ids of one millisecond: as many as 12 bits count. */
const MAX_IDS = 4096;

/** Three hexadecimal digits of each number that an id of a millisecond may have. */
const COUNTS = Array.from({ length: MAX_IDS }, (_, count) => count.toString(16).padStart(3, '0'));

/** The millisecond of the latest id, its first 52 bits as text, and how many ids it has. */
let idMs = 0;
let idPrefix = '';
let ids = 0;

/** The latest time that was told. */
let at = 0;
let occurredAt = '';

/** Endings of ids that are made at a time. */
const ENDINGS = 256;

/** `-8123-456789abcdef`: the variant and 62 random bits. */
const ENDING_LENGTH = 18;

const random = Buffer.allocUnsafe(ENDINGS * 8);
const written = Buffer.allocUnsafe(ENDINGS * ENDING_LENGTH);
let endings = '';
let usedEndings = ENDINGS;

const DIGITS = Buffer.from('0123456789abcdef');
const DASH = 0x2d;

/** One text for all of them, of which each id takes a slice: a text of many pieces costs more later. */
function writeEndings(): void {
  randomFillSync(random);
  for (let n = 0, from = 0, to = 0; n < ENDINGS; n++) {
    random[from] = ((random[from] as number) & 0x3f) | 0x80;
    for (let byte = 0; byte < 8; byte++) {
      const bits = random[from++] as number;
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
    occurredAt = new Date(now).toISOString();
  }
  if (now > idMs || ids === MAX_IDS) {
    idMs = Math.max(now, idMs + 1);
    const time = idMs.toString(16).padStart(12, '0');
    idPrefix = `${time.slice(0, 8)}-${time.slice(8)}-7`;
    ids = 0;
  }
  if (usedEndings === ENDINGS) writeEndings();
  const start = ENDING_LENGTH * usedEndings++;
  const id = idPrefix + COUNTS[ids++] + endings.slice(start, start + ENDING_LENGTH);
  return { id, at, occurredAt };
}
