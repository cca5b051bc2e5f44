import { z } from 'zod';

import { checkJson, writtenFor } from '../json.ts';

/** The range of PostgreSQL's `integer`. */
const MAX_INT4 = 2 ** 31 - 1;

/** What a field of an event takes: told twice, once at length and once quickly. */
interface Field<Schema extends z.ZodType = z.ZodType> {
  schema: Schema;
  /** Whether the schema takes the value as it is. May say no to what the schema takes, never yes to more. */
  fits: (value: unknown) => boolean;
}

const field = <Schema extends z.ZodType>(schema: Schema, fits: Field['fits']) => ({ schema, fits });

const text = (maxLength: number) =>
  field(
    z.string().min(1).max(maxLength),
    (value) => typeof value === 'string' && value.length > 0 && value.length <= maxLength,
  );

// Lengths keep indexed values below the 2,704 bytes that a B-tree entry may take.
const reference = text(2048);
const label = text(256);

const between = (min: number, max: number) =>
  field(
    z.number().min(min).max(max),
    (value) => typeof value === 'number' && value >= min && value <= max,
  );

const literal = <Value extends string>(one: Value) =>
  field(z.literal(one), (value) => value === one);

/** `null` and absent mean the same for an optional field: other languages send `null`. */
const optional = <Schema extends z.ZodType>({ schema, fits }: Field<Schema>) =>
  field(schema.nullish(), (value) => value === undefined || value === null || fits(value));

const storableJson = (ifAbsent: string | null) =>
  z.unknown().superRefine((given, ctx) => {
    const value = writtenFor(given);
    const fault = value === undefined || value === null ? null : checkJson(value);
    if (fault)
      ctx.addIssue({
        code: 'custom',
        message: [fault.path, fault.reason].filter(Boolean).join(': '),
      });
    else if (ifAbsent && (value === undefined || value === null)) {
      ctx.addIssue({ code: 'custom', message: ifAbsent });
    }
  });

const isJson = (given: unknown) => {
  const value = writtenFor(given);
  return value !== undefined && value !== null && checkJson(value) === null;
};
const json = field(storableJson('is required and takes any JSON value but null'), isJson);
const optionalJson = optional(field(storableJson(null), isJson));

const LOWER_CASE_UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** The years 0001 to 9999. */
const [FIRST_MS, LAST_MS] = [
  Date.parse('0001-01-01T00:00:00.000Z'),
  Date.parse('9999-12-31T23:59:59.999Z'),
] as const;

/** Up to the 28th, which every month has. */
const UTC_TIME =
  /^(?!0000)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z$/;

const identityFields = {
  /** UUID of any version; the row's primary key. */
  id: field(
    z.uuid().toLowerCase(),
    (value) => typeof value === 'string' && LOWER_CASE_UUID.test(value),
  ),
  /** ISO 8601 with a zone, in the years 0001 to 9999; stored in UTC with milliseconds. */
  occurredAt: field(
    z.iso.datetime({ offset: true }).transform((iso, ctx) => {
      const utc = new Date(iso).toISOString();
      if (!/^(?!0000)\d{4}-/.test(utc)) {
        ctx.addIssue({ code: 'custom', message: 'takes a year from 0001 to 9999' });
      }
      return utc;
    }),
    (value) => typeof value === 'string' && UTC_TIME.test(value),
  ),
};

const metricFields = {
  metricType: label,
  /** Finite. */
  metricValue: field(z.number(), Number.isFinite),
  metadata: optionalJson,
};

/** The fields of each kind, without id and time; of metrics, those of each scope. */
const FIELDS = {
  'memory-access': {
    memoryId: reference,
    /** Such as `read`, `write`, `search`. */
    accessType: label,
    accessedBy: reference,
    /** Such as `agent`, `user`, `system`. */
    accessorType: label,
    context: optional(field(z.string(), (value) => typeof value === 'string')),
    /** 0..1 */
    usefulness: optional(between(0, 1)),
  },
  transition: {
    stateId: reference,
    /** Such as `user_action`, `agent_decision`. */
    triggerType: label,
    triggerId: optional(reference),
    transitionData: json,
    previousValues: optionalJson,
    newValues: optionalJson,
  },
  sessionMetric: {
    scope: literal('session'),
    /** The session's `id` or its `sessionId`; the `id` wins. */
    sessionId: reference,
    ...metricFields,
  },
  agentMetric: {
    scope: literal('agent'),
    agentId: reference,
    /** Such as `daily`, `2024-W20`. */
    timeframe: optional(label),
    ...metricFields,
  },
  'session-event': {
    /** The session's `id` or its `sessionId`; the `id` wins. */
    sessionId: reference,
    eventType: label,
    eventData: json,
    /** Place within the session. */
    sequence: field(
      z
        .int()
        .min(-MAX_INT4 - 1)
        .max(MAX_INT4),
      (value) => Number.isInteger(value) && Math.abs(value as number) <= MAX_INT4,
    ),
    /** Milliseconds. */
    duration: optional(
      field(z.number().min(0), (value) => Number.isFinite(value) && (value as number) >= 0),
    ),
  },
} as const;

type Fields = Readonly<Record<string, Field>>;
type ShapeOf<F extends Fields> = { -readonly [K in keyof F]: F[K]['schema'] };

function eventSchema<F extends Fields>(fields: F) {
  const all: typeof identityFields & F = { ...identityFields, ...fields };
  const shape = Object.entries<Field>(all).map(([name, { schema }]) => [name, schema]);
  return z.strictObject(Object.fromEntries(shape) as ShapeOf<typeof all>);
}

/**
 * The schema of each kind of event, as it stands in a job. Unknown fields are refused rather than
 * dropped, so that neither a typo nor a newer producer's field is lost without a word.
 */
export const EVENT_SCHEMAS = {
  'memory-access': eventSchema(FIELDS['memory-access']),
  transition: eventSchema(FIELDS.transition),
  metrics: z.discriminatedUnion('scope', [
    eventSchema(FIELDS.sessionMetric),
    eventSchema(FIELDS.agentMetric),
  ]),
  'session-event': eventSchema(FIELDS['session-event']),
} as const;

export type EventKind = keyof typeof EVENT_SCHEMAS;

export const EVENT_KINDS = Object.keys(EVENT_SCHEMAS) as EventKind[];

type Fits = (event: Readonly<Record<string, unknown>>) => boolean;

/** Whether an event that has its id and time is right beyond doubt, as its `ownMembers` tell. */
export const FITS = fitsOf(identityFields);

/** The same of one that has neither. */
export const FITS_NEW = fitsOf({});

/** A `Date` that `JSON.stringify` writes as it is stored. */
const isStorableDate = (value: unknown) =>
  value instanceof Date && value.getTime() >= FIRST_MS && value.getTime() <= LAST_MS;

/** The same of one whose time may be a `Date` as well. */
export const FITS_OWN = fitsOf({
  ...identityFields,
  occurredAt: field(
    identityFields.occurredAt.schema,
    (value) => isStorableDate(value) || identityFields.occurredAt.fits(value),
  ),
});

function fitsOf(more: Fields): Readonly<Record<EventKind, Fits>> {
  const [session, agent] = [FIELDS.sessionMetric, FIELDS.agentMetric].map((fields) =>
    fitsAll({ ...more, ...fields }),
  ) as [Fits, Fits];
  return {
    'memory-access': fitsAll({ ...more, ...FIELDS['memory-access'] }),
    transition: fitsAll({ ...more, ...FIELDS.transition }),
    metrics: (event) => session(event) || agent(event),
    'session-event': fitsAll({ ...more, ...FIELDS['session-event'] }),
  };
}

function fitsAll(fields: Fields): Fits {
  const known = new Map(
    Object.entries(fields).map(([name, { fits }]) => [
      name,
      { fits, isRequired: !fits(undefined) },
    ]),
  );
  const required = [...known.values()].filter(({ isRequired }) => isRequired).length;
  return (event) => {
    let found = 0;
    for (const name in event) {
      const member = known.get(name);
      if (!member?.fits(event[name])) return false;
      if (member.isRequired) found++;
    }
    return found === required;
  };
}

/**
 * The members of a plain object that `JSON.stringify` writes, for who reads them without asking whose they are: something in this process
 * may have given a member to every object, as some old libraries do.
 */
export function ownMembers(event: Readonly<Record<string, unknown>>): Record<string, unknown> {
  for (const _ in Object.prototype) return { __proto__: null, ...event };
  return event;
}

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

/** What a caller emits: `id` (default: a new UUIDv7) and `occurredAt` (default: now) may be left out. */
export type EventInput<K extends EventKind = EventKind> = DistributiveOmit<
  z.input<(typeof EVENT_SCHEMAS)[K]>,
  'id' | 'occurredAt'
> & {
  id?: string | undefined;
  occurredAt?: string | Date | undefined;
};
