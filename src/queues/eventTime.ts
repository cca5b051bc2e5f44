/* The time of an event, between milliseconds since 1970 and ISO 8601 in UTC. */

/** The seconds of a minute and the milliseconds of a second, as they end a time. */
const SECONDS = Array.from({ length: 60 }, (_, s) => `${String(s).padStart(2, '0')}.`);
const MILLISECONDS = Array.from({ length: 1000 }, (_, ms) => `${String(ms).padStart(3, '0')}Z`);

/** The minute of the latest time that was written, and what its text begins with. */
let minute = NaN;
let minuteText = '';

/**
 * What `Date.toISOString` writes of a time in milliseconds since 1970, of the years 0000 to 9999; cheaper where the time
 * before was of the same minute. In one piece, for which `JSON.stringify` has a faster way.
 */
export function timeText(ms: number): string {
  const inMinute = ((ms % 60_000) + 60_000) % 60_000; // of times before 1970 as well
  if (ms - inMinute !== minute) {
    minute = ms - inMinute;
    minuteText = new Date(minute).toISOString().slice(0, -'00.000Z'.length);
  }
  const second = Math.trunc(inMinute / 1000);
  return [minuteText, SECONDS[second], MILLISECONDS[inMinute - second * 1000]].join('');
}

/** The latest day of which `timeOf` was asked, as text and in milliseconds since 1970. */
let day = '';
let dayMs = 0;

/** The number that two digits of a text are. */
const pair = (text: string, at: number) =>
  text.charCodeAt(at) * 10 + text.charCodeAt(at + 1) - 11 * DIGIT_0;
const DIGIT_0 = 0x30;

/**
 * Milliseconds since 1970 of a time that is written as `Date.toISOString` does. Parsing all of it costs
 * more than to check an event's texts, and most events are of the day of the one before.
 */
export function timeOf(occurredAt: string): number {
  const date = occurredAt.slice(0, 'YYYY-MM-DD'.length);
  if (date !== day) {
    day = date;
    dayMs = Date.parse(`${date}T00:00:00.000Z`);
  }
  const seconds = (pair(occurredAt, 11) * 60 + pair(occurredAt, 14)) * 60 + pair(occurredAt, 17);
  return dayMs + seconds * 1000 + pair(occurredAt, 20) * 10 + occurredAt.charCodeAt(22) - DIGIT_0;
}
