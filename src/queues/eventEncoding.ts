import type { z } from 'zod';

import { InvalidEventError } from '../errors.ts';
import { toStorableJson } from '../json.ts';
import { faultsOf } from './eventFaults.ts';
import { EVENT_SCHEMAS, FITS, FITS_NEW, FITS_OWN, ownMembers, type EventKind } from './events.ts';
import { timeOf, timeText } from './eventTime.ts';
import { newIdentity } from './identity.ts';
import { rankOf, type Rank } from './rank.ts';
import { WHOLE } from './wholeEvent.ts';

/** Bytes of UTF-8 JSON that one event may take, its id and time included. */
export const MAX_EVENT_BYTES = 256 * 1024;

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
  readonly rank: Rank;
}

/**
 * Checks an event and encodes it once. Both ends use it: the producer before it takes an event,
 * the worker because a foreign producer may have written the job.
 *
 * Almost all events are right, and are as they will be stored. Such a one is seen to be so at a
 * third of the cost, and is written as it is; all others are the schema's. (A getter that tells
 * something else the second time deceives its owner alone: workers check again.)
 *
 * @throws {InvalidEventError} that names every fault; `field` = the path of the first
 */
export function encodeEvent(kind: EventKind, event: unknown): EncodedEvent {
  return isRight(kind, event) ? encodeRight(kind, event) : encodeParsed(kind, event);
}

/**
 * Encodes an event of which `isRight` is known.
 *
 * @param maxBytes - of JSON
 * @throws {InvalidEventError} when it is larger
 */
export const encodeRight = (
  kind: EventKind,
  event: RightEvent,
  maxBytes = MAX_EVENT_BYTES,
): EncodedEvent => encode(kind, event, event.id, timeOf(event.occurredAt), maxBytes);

function encodeParsed(kind: EventKind, event: unknown): EncodedEvent {
  const parsed = EVENT_SCHEMAS[kind].safeParse(event);
  if (!parsed.success) throw invalidEvent(kind, event, parsed.error);
  return encode(kind, parsed.data, parsed.data.id, Date.parse(parsed.data.occurredAt));
}

/**
 * Gives an event an id and the time that it is now, which need no check, and encodes it, if it has
 * neither and is right at first sight. Most events that are emitted are.
 *
 * @throws {InvalidEventError} when it is too large
 */
export function encodeNewEvent(kind: EventKind, event: unknown): EncodedEvent | undefined {
  const own = isPlain(event) ? ownMembers(event) : undefined;
  if (!own || !FITS_NEW[kind](own)) return undefined;
  const { id, at, occurredAt } = newIdentity();
  return encode(kind, WHOLE[kind](own, id, occurredAt), id, at);
}

/**
 * Does what `encodeEvent` does for an event whose time may be a `Date` as well.
 *
 * @throws {InvalidEventError} as `encodeEvent` does
 */
export function encodeOwnEvent(
  kind: EventKind,
  event: { id: string; occurredAt: string | Date },
): EncodedEvent {
  const { id, occurredAt } = event;
  const own = isPlain(event) ? ownMembers(event) : undefined;
  if (own && FITS_OWN[kind](own)) {
    const at = typeof occurredAt === 'string' ? timeOf(occurredAt) : occurredAt.getTime();
    const time = typeof occurredAt === 'string' ? occurredAt : timeText(at);
    return encode(kind, WHOLE[kind](own, id, time), id, at);
  }
  return encodeEvent(kind, { ...event, occurredAt: toIso(occurredAt) });
}

function toIso(occurredAt: unknown): unknown {
  if (!(occurredAt instanceof Date)) return occurredAt;
  return Number.isNaN(occurredAt.getTime()) ? 'Invalid Date' : occurredAt.toISOString();
}

/**
 * Whether `encodeEvent` takes an event and, but for the way in which JSON may be written, changes
 * nothing about it. (Characters that cannot be stored, and size, are not looked at.)
 */
export const isRight = (kind: EventKind, event: unknown): event is RightEvent =>
  isPlain(event) && FITS[kind](ownMembers(event));

/** What is known of an event that is right. */
export interface RightEvent {
  id: string;
  /** As `Date.toISOString` writes it. */
  occurredAt: string;
}

/** Whether it is written as JSON by its own members alone. */
function isPlain(event: unknown): event is Record<string, unknown> {
  if (typeof event !== 'object' || event === null) return false;
  const prototype: unknown = Object.getPrototypeOf(event);
  if (prototype !== Object.prototype && prototype !== null) return false;
  return typeof (event as { toJSON?: unknown }).toJSON !== 'function';
}

function encode(
  kind: EventKind,
  event: object,
  id: string,
  occurredAt: number,
  maxBytes = MAX_EVENT_BYTES,
): EncodedEvent {
  const { json, replaced } = toStorableJson(event);
  const bytes = Buffer.byteLength(json);
  if (bytes > maxBytes) {
    throw new InvalidEventError(
      `${kind} event ${id} takes ${bytes} bytes as JSON, at most ${maxBytes} are allowed; keep large content elsewhere and refer to it`,
      { id },
    );
  }
  return { id, occurredAt, json, bytes, replaced, rank: rankOf(kind, event) };
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
