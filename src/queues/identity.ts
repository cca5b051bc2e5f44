import { randomUUID } from 'node:crypto';

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

/**
 * Makes what an event that occurs now is given. It is called within every `emit`, and several times
 * in most milliseconds, so the text of a millisecond is made once.
 *
 * The id is that of RFC 9562, section 5.7: 48 bits of time, 12 bits that count within a
 * millisecond (section 6.2, method 1), and 62 random bits, which are taken from a UUIDv4 since
 * these stand at the same place there. Where the clock goes back, or a millisecond has no number
 * left, the ids' own time goes on from where it was.
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
  const id = idPrefix + COUNTS[ids++] + randomUUID().slice(18);
  return { id, at, occurredAt };
}
