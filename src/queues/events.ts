import { z } from 'zod';

import { InvalidEventError } from '../errors.ts';
import { checkJson, toStorable } from '../json.ts';
import { faultsOf } from './eventFaults.ts';

/** Bytes of UTF-8 JSON that one event may take, its id and time included. */
export const MAX_EVENT_BYTES = 256 * 1024;

/** The range of PostgreSQL's `integer`. */
const MAX_INT4 = 2 ** 31 - 1;

// Lengths keep indexed values below the 2,704 bytes that a B-tree entry may take.
const reference = z.string().min(1).max(2048);
const label = z.string().min(1).max(256);

/** `null` and absent mean the same for an optional field: other languages send `null`. */
const optional = <T extends z.ZodType>(schema: T) => schema.nullish();

const unitInterval = z.number().min(0).max(1);

const storableJson = (ifAbsent: string | null) =>
  z.unknown().superRefine((value, ctx) => {
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

const json = storableJson('is required and takes any JSON value but null');
const optionalJson = optional(storableJson(null));

const eventFields = {
  /** UUID of any version; the row's primary key. */
  id: z.uuid().toLowerCase(),
  /** ISO 8601 with a zone, in the years 0001 to 9999; stored in UTC with milliseconds. */
  occurredAt: z.iso.datetime({ offset: true }).transform((text, ctx) => {
    const utc = new Date(text).toISOString();
    if (!/^(?!0000)\d{4}-/.test(utc)) {
      ctx.addIssue({ code: 'custom', message: 'takes a year from 0001 to 9999' });
    }
    return utc;
  }),
};

const metricFields = {
  metricType: label,
  /** Finite. */
  metricValue: z.number(),
  metadata: optionalJson,
};

/**
 * The schema of each kind of event, as it stands in a job. Unknown fields are refused rather than
 * dropped, so that neither a typo nor a newer producer's field is lost without a word.
 */
export const EVENT_SCHEMAS = {
  'memory-access': z.strictObject({
    ...eventFields,
    memoryId: reference,
    /** Such as `read`, `write`, `search`. */
    accessType: label,
    accessedBy: reference,
    /** Such as `agent`, `user`, `system`. */
    accessorType: label,
    context: optional(z.string()),
    /** 0..1 */
    usefulness: optional(unitInterval),
  }),
  transition: z.strictObject({
    ...eventFields,
    stateId: reference,
    /** Such as `user_action`, `agent_decision`. */
    triggerType: label,
    triggerId: optional(reference),
    transitionData: json,
    previousValues: optionalJson,
    newValues: optionalJson,
  }),
  metrics: z.discriminatedUnion('scope', [
    z.strictObject({
      ...eventFields,
      scope: z.literal('session'),
      /** The session's `id` or its `sessionId`; the `id` wins. */
      sessionId: reference,
      ...metricFields,
    }),
    z.strictObject({
      ...eventFields,
      scope: z.literal('agent'),
      agentId: reference,
      /** Such as `daily`, `2024-W20`. */
      timeframe: optional(label),
      ...metricFields,
    }),
  ]),
  'session-event': z.strictObject({
    ...eventFields,
    /** The session's `id` or its `sessionId`; the `id` wins. */
    sessionId: reference,
    eventType: label,
    eventData: json,
    /** Place within the session. */
    sequence: z
      .int()
      .min(-MAX_INT4 - 1)
      .max(MAX_INT4),
    /** Milliseconds. */
    duration: optional(z.number().min(0)),
  }),
} as const;

export type EventKind = keyof typeof EVENT_SCHEMAS;

export const EVENT_KINDS = Object.keys(EVENT_SCHEMAS) as EventKind[];

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

/** What a caller emits: `id` (default: a new UUIDv7) and `occurredAt` (default: now) may be left out. */
export type EventInput<K extends EventKind = EventKind> = DistributiveOmit<
  z.input<(typeof EVENT_SCHEMAS)[K]>,
  'id' | 'occurredAt'
> & {
  id?: string | undefined;
  occurredAt?: string | Date | undefined;
};

/** A checked event and the JSON that stands for it on its whole way to PostgreSQL. */
export interface EncodedEvent {
  readonly id: string;
  /** Milliseconds since 1970. */
  readonly occurredAt: number;
  readonly json: string;
  /** UTF-8 bytes of `json`. */
  readonly bytes: number;
  /** U+0000 and lone surrogates that became U+FFFD. */
  readonly replaced: number;
}

/**
 * Checks an event and encodes it once. Both ends use it: the producer before it takes an event,
 * the worker because a foreign producer may have written the job.
 *
 * @throws {InvalidEventError} that names every fault; `field` = the path of the first
 */
export function encodeEvent(kind: EventKind, event: unknown): EncodedEvent {
  const parsed = EVENT_SCHEMAS[kind].safeParse(event);
  if (!parsed.success) throw invalidEvent(kind, event, parsed.error);
  const { value, replaced } = toStorable(parsed.data);
  const text = JSON.stringify(value);
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_EVENT_BYTES) {
    throw new InvalidEventError(
      `${kind} event ${parsed.data.id} takes ${bytes} bytes as JSON, at most ${MAX_EVENT_BYTES} are allowed; keep large content elsewhere and refer to it`,
      { id: parsed.data.id },
    );
  }
  return {
    id: parsed.data.id,
    occurredAt: Date.parse(parsed.data.occurredAt),
    json: text,
    bytes,
    replaced,
  };
}

/** Faults that a message spells out. */
const MAX_FAULTS = 10;

function invalidEvent(kind: EventKind, event: unknown, cause: z.ZodError): InvalidEventError {
  const faults = faultsOf(EVENT_SCHEMAS[kind], event);
  const shown = faults
    .slice(0, MAX_FAULTS)
    .map(({ field, reason }) => (field ? `${field}: ${reason}` : reason));
  if (faults.length > MAX_FAULTS) shown.push(`and ${faults.length - MAX_FAULTS} more`);
  const id = (event as { id?: unknown } | null | undefined)?.id;
  const which = typeof id === 'string' ? ` ${id.slice(0, 64)}` : '';
  const field = faults[0]?.field;
  return new InvalidEventError(`${kind} event${which} is invalid: ${shown.join('; ')}`, {
    ...(field && { field }),
    ...(typeof id === 'string' && { id: id.slice(0, 64) }),
    cause,
  });
}
