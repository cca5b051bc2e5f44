import { v7 as uuidv7 } from 'uuid';
import { z } from 'zod';

import { Prisma } from '../database/client.ts';
import { InvalidArgumentError } from '../errors.ts';
import { checkJson, toStorable } from '../json.ts';

// The parts that the inputs of the service are made of. Every message completes the sentence
// "<field>: got <value>; …". Lengths keep indexed values below the 2,704 bytes that a B-tree
// entry may take.

const text = (max: number, takes: string) => z.string(takes).min(1, takes).max(max, takes);

/** Names a row that is somewhere already. */
export const reference = text(2048, 'takes an id of 1 to 2,048 characters');
/** A new id or name. */
export const label = text(256, 'takes 1 to 256 characters');
export const prose = z.string('takes a string');
export const flag = z.boolean('takes true or false');

const FINITE = 'takes a finite number';
export const finite = z.number(FINITE);

const UNIT = 'takes a number from 0 to 1';
export const unitInterval = z.number(UNIT).min(0, UNIT).max(1, UNIT);

const DURATION = 'takes milliseconds, 0 or more';
export const durationMs = z.number(DURATION).min(0, DURATION);

const MAX_INT4 = 2 ** 31 - 1;
const INT4 = `takes a whole number from ${-MAX_INT4 - 1} to ${MAX_INT4}`;
export const int4 = z
  .int(INT4)
  .min(-MAX_INT4 - 1, INT4)
  .max(MAX_INT4, INT4);

const isoTime = z.iso.datetime({ offset: true });

export const time = z
  .custom<Date | string>((value) => {
    if (!(value instanceof Date) && !isoTime.safeParse(value).success) return false;
    const year = new Date(value as Date | string).getUTCFullYear();
    return year >= 1 && year <= 9999;
  }, 'takes a Date, or an ISO 8601 text with a zone, in the years 1 to 9999')
  .transform((value) => new Date(value));

/**
 * A JSON value on its way through Prisma, in the form that Prisma's own protocol has for JSON.
 * Handed over as a plain value, a bare number such as 1.0009253853205131e-8 would lose its last bit.
 */
class JsonText {
  readonly text: string;
  constructor(value: unknown) {
    this.text = JSON.stringify(value);
  }
  toJSON() {
    return { $type: 'Json', value: this.text };
  }
}

/** Any JSON value but null, taken as `JSON.stringify` prints it. */
export const json = z
  .custom<NonNullable<unknown>>(
    (value) => (JSON.stringify(value) ?? 'null') !== 'null',
    'takes a JSON value other than null',
  )
  .transform((value) => new JsonText(value));

/** Null and absent mean the same: the fallback. */
export const orElse = <S extends z.ZodType, F>(schema: S, fallback: () => F) =>
  schema.nullish().transform((value) => value ?? fallback());

export const optional = <S extends z.ZodType>(schema: S) => orElse(schema, () => null);
export const optionalJson = orElse(json, () => Prisma.DbNull);
export const optionalTags = optional(z.array(label, 'takes a list of strings'));

/** What a parsed `optionalJson` stands for; null for none. */
export const valueOf = (parsed: z.output<typeof optionalJson>): unknown =>
  parsed instanceof JsonText ? JSON.parse(parsed.text) : null;

/** What every event may bring along: a uuid for exactly-once (default: a new one), and its time. */
export const uuid = z.guid('takes a uuid').toLowerCase();
export const eventFields = {
  /** Give one to make the call repeatable: an id that is stored already changes nothing. */
  id: orElse(uuid, () => uuidv7()),
  /** Default now. */
  occurredAt: orElse(time, () => new Date()),
};

/**
 * Checks the argument of `method` and fills in its defaults. U+0000 and lone surrogates, which
 * PostgreSQL cannot store, become U+FFFD.
 *
 * @throws {InvalidArgumentError} naming every field at fault, what it got and what it takes
 */
export function parseInput<S extends z.ZodObject>(
  method: string,
  schema: S,
  input: unknown,
): z.output<S> {
  const fault = checkJson(input);
  if (fault) throw invalid(method, [{ field: fault.path, reason: fault.reason }]);
  const parsed = schema.safeParse(toStorable(input).value, { reportInput: true });
  if (parsed.success) return parsed.data;
  const fields = Object.keys(schema.shape).join(', ');
  throw invalid(
    method,
    parsed.error.issues.map((issue) => explain(issue, fields)),
  );
}

interface Fault {
  field: string;
  reason: string;
}

function explain(issue: z.core.$ZodIssue, fields: string): Fault {
  const field = issue.path.reduce<string>(
    (path, step) =>
      typeof step === 'number'
        ? `${path}[${step}]`
        : path
          ? `${path}.${String(step)}`
          : String(step),
    '',
  );
  if (issue.code === 'unrecognized_keys') {
    const key = issue.keys[0] ?? '';
    return field
      ? { field: `${field}.${key}`, reason: 'is not a field' }
      : { field: key, reason: `is not a field; takes ${fields}` };
  }
  if (field === '')
    return { field, reason: `got ${show(issue.input)}; takes an object with ${fields}` };
  return { field, reason: `got ${show(issue.input)}; ${issue.message}` };
}

function invalid(method: string, faults: Fault[]): InvalidArgumentError {
  const lines = faults.map(({ field, reason }) => (field ? `${field}: ${reason}` : reason));
  return new InvalidArgumentError(`${method}: ${lines.join('\n  ')}`, {
    field: faults[0]?.field ?? '',
  });
}

/** Short and without content: messages end up in logs. */
function show(value: unknown): string {
  if (value === undefined || value === '') return 'nothing';
  if (typeof value === 'string')
    return value.length <= 40 ? JSON.stringify(value) : `${value.length} characters`;
  if (Array.isArray(value)) return 'a list';
  if (value instanceof Date)
    return Number.isNaN(value.getTime()) ? 'an invalid Date' : value.toISOString();
  return typeof value === 'object' && value !== null ? 'an object' : JSON.stringify(value);
}
