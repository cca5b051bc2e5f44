import { createHash } from 'node:crypto';

/** Levels of objects and arrays within each other at most; PostgreSQL and JavaScript recurse too. */
const MAX_DEPTH = 200;

/** Where a value stops being JSON, and why. */
export interface JsonFault {
  /** Such as `a.b[3]`; empty for the value itself. */
  path: string;
  /** What it got and what it takes, for people. */
  reason: string;
}

/**
 * Finds the first thing within `value` that JSON cannot hold: NaN, ±Infinity, a bigint, a
 * function, a symbol, a circle, or more than 200 levels. As with `JSON.stringify`, `toJSON` is
 * asked first, undefined members do not exist, and undefined array items are null.
 *
 * @example checkJson({ a: [1, NaN] }) // { path: 'a[1]', reason: 'got NaN; takes a finite number' }
 */
export function checkJson(value: unknown): JsonFault | null {
  return findFault(value, 0);
}

// It runs for every event that is emitted: the path is put together only on the way back from a
// fault, and a circle is noticed only by its depth.
function findFault(value: unknown, depth: number): JsonFault | null {
  switch (typeof value) {
    case 'number':
      return Number.isFinite(value)
        ? null
        : { path: '', reason: `got ${value}; takes a finite number` };
    case 'bigint':
      return { path: '', reason: 'got a bigint; takes a number or a string' };
    case 'function':
    case 'symbol':
      return { path: '', reason: `got a ${typeof value}; takes a JSON value` };
    case 'object':
      break;
    default:
      return null;
  }
  if (value === null) return null;
  if (value instanceof Date) {
    return Number.isNaN(value.getTime())
      ? { path: '', reason: 'got an invalid Date; takes a JSON value other than null' }
      : null;
  }
  if (depth === MAX_DEPTH) {
    return {
      path: '',
      reason: `got a circle or more than ${MAX_DEPTH} levels; takes at most ${MAX_DEPTH}`,
    };
  }
  if (hasToJson(value)) return findFault(value.toJSON(), depth + 1);
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      const fault = findFault(value[index], depth + 1);
      if (fault) return below(`[${index}]`, fault);
    }
    return null;
  }
  // Cheaper than a list of the keys; what the prototype has, if anything, is not written.
  for (const key in value) {
    if (!Object.hasOwn(value, key)) continue;
    const fault = findFault((value as Record<string, unknown>)[key], depth + 1);
    if (fault) return below(key, fault);
  }
  return null;
}

function below(step: string, { path, reason }: JsonFault): JsonFault {
  const path_ = path === '' || path.startsWith('[') ? step + path : `${step}.${path}`;
  return { path: path_.slice(0, 500), reason };
}

/** Levels of a job's data at most; beyond it `JSON.stringify` runs out of stack sooner or later. */
const MAX_READABLE_DEPTH = 1000;

const [QUOTE, OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT] = [0x22, 0x5b, 0x5d, 0x7b, 0x7d];

/**
 * Replaces whatever lies deeper than 1,000 levels in JSON text by a string that holds its text, so
 * that what is parsed can be walked and written again. Text that is no JSON stays none.
 *
 * @example flattenJson('[[[1]]]', 2) // '[["[1]"]]'
 */
export function flattenJson(text: string, maxDepth = MAX_READABLE_DEPTH): string {
  let flat = '';
  let done = 0;
  let depth = 0;
  let start = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at); // text[at] would make a string of each character
    if (code === QUOTE) at = endOfString(text, at);
    else if (code === OPEN_ARRAY || code === OPEN_OBJECT) {
      if (depth++ === maxDepth) start = at;
    } else if ((code === CLOSE_ARRAY || code === CLOSE_OBJECT) && --depth === maxDepth) {
      flat += text.slice(done, start) + JSON.stringify(text.slice(start, at + 1));
      done = at + 1;
    }
  }
  return flat + text.slice(done);
}

/** A number beyond 1.8e308 as PostgreSQL's jsonb prints it: with all of its digits. */
const OVERLONG_NUMBER = /\d{309}/;

/**
 * Parses JSON as PostgreSQL prints it, into what can be written again: a number that is too large
 * for JavaScript would become `null`, a right value of many fields. As the string 'Infinity' it is
 * refused for what it is. What is nested too deeply is text, see `flattenJson`.
 */
export function parseJsonb(text: string): unknown {
  const flat = flattenJson(text);
  return OVERLONG_NUMBER.test(flat)
    ? JSON.parse(flat, (_, value: unknown) =>
        value === Infinity || value === -Infinity ? String(value) : value,
      )
    : JSON.parse(flat);
}

/** Where the string that begins at `start` ends: at a quote after an even number of backslashes. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let slashes = 0;
    while (text[end - 1 - slashes] === '\\') slashes++;
    if (slashes % 2 === 0) return end;
  }
  return text.length;
}

/**
 * Replaces what PostgreSQL cannot store, U+0000 and lone surrogates, by U+FFFD in every string
 * and key within `value`. A clean value is returned as it is; otherwise a copy. Takes what
 * `checkJson` has passed: a circle would never end.
 *
 * @returns the value, and how many characters were replaced
 *
 * @example toStorable({ text: 'a\0' }) // { value: { text: 'a\uFFFD' }, replaced: 1 }
 */
export function toStorable<T>(value: T): { value: T; replaced: number } {
  if (isStorable(value)) return { value, replaced: 0 };
  const tally = { replaced: 0 };
  return { value: copyStorable(value, tally) as T, replaced: tally.replaced };
}

/**
 * Writes a value as JSON that PostgreSQL can store, as `toStorable` makes it.
 *
 * @returns the text, and how many characters were replaced
 */
export function toStorableJson(value: object): { json: string; replaced: number } {
  const json = JSON.stringify(value);
  // U+0000 and lone surrogates are written as escapes, and little else is: most texts have none,
  // and looking for one costs a hundredth of a walk through the value.
  if (!json.includes('\\u')) return { json, replaced: 0 };
  const { value: storable, replaced } = toStorable(value);
  return { json: replaced === 0 ? json : JSON.stringify(storable), replaced };
}

function isStorable(value: unknown): boolean {
  if (typeof value === 'string') return isStorableText(value);
  if (typeof value !== 'object' || value === null || value instanceof Date) return true;
  if (hasToJson(value)) return isStorable(value.toJSON());
  if (Array.isArray(value)) {
    for (const item of value) if (!isStorable(item)) return false;
    return true;
  }
  for (const key of Object.keys(value)) {
    if (!isStorableText(key) || !isStorable((value as Record<string, unknown>)[key])) return false;
  }
  return true;
}

const isStorableText = (text: string) => !text.includes('\0') && text.isWellFormed();

function copyStorable(value: unknown, tally: { replaced: number }): unknown {
  if (typeof value === 'string') return replaceText(value, tally);
  if (typeof value !== 'object' || value === null || value instanceof Date) return value;
  if (hasToJson(value)) return copyStorable(value.toJSON(), tally);
  if (Array.isArray(value)) return value.map((item) => copyStorable(item, tally));
  // Not by assignment, which a key named __proto__ would turn into a prototype.
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [
      replaceText(key, tally),
      copyStorable(member, tally),
    ]),
  );
}

function replaceText(text: string, tally: { replaced: number }): string {
  if (isStorableText(text)) return text;
  const clean = text.toWellFormed().replaceAll('\0', '\uFFFD');
  // One code unit takes the place of one, so the texts differ exactly where one was replaced.
  for (let index = 0; index < text.length; index++)
    if (text[index] !== clean[index]) tally.replaced++;
  return clean;
}

/**
 * The one JSON text of a value, as RFC 8785 writes it: no spaces, keys sorted by UTF-16 code
 * units at every level, numbers and strings as `JSON.stringify` prints them. Equal JSON gives
 * equal text on any machine and after any round trip through `jsonb`.
 *
 * @example canonicalJson({ b: 1, a: [] }) // '{"a":[],"b":1}'
 */
export function canonicalJson(value: unknown): string {
  return canonical(value) ?? 'null';
}

function canonical(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  if (hasToJson(value)) return canonical(value.toJSON());
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item) ?? 'null').join(',')}]`;
  const members: string[] = [];
  for (const key of Object.keys(value).sort()) {
    const text = canonical((value as Record<string, unknown>)[key]);
    if (text !== undefined) members.push(`${JSON.stringify(key)}:${text}`);
  }
  return `{${members.join(',')}}`;
}

/** SHA-256 of a text's UTF-8 bytes, as 64 hexadecimal digits. */
export function sha256Hex(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('hex');
}

/** What `JSON.stringify` writes in place of a value that says so itself. */
export const writtenFor = (value: unknown): unknown =>
  typeof value === 'object' && value !== null && !(value instanceof Date) && hasToJson(value)
    ? value.toJSON()
    : value;

function hasToJson(value: object): value is { toJSON(): unknown } {
  return typeof (value as { toJSON?: unknown }).toJSON === 'function';
}
