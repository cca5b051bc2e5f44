import type { z } from 'zod';

/** Something that is wrong with an event. Neither part holds what the event says. */
export interface EventFault {
  /** Such as `usefulness`; empty for the event itself. */
  field: string;
  /** Such as `got a string, takes a number`. */
  reason: string;
}

/** Characters that are told of a name that anybody may have made up. */
const MAX_NAME_LENGTH = 64;

/**
 * Finds all that is wrong with an event, in words that complete `<field>: `. Unknown fields come
 * first: a field that seems to be missing is often one of these, mistyped.
 *
 * @example faultsOf(schema, { memoryID: 'm' })
 * // [{ field: 'memoryID', reason: 'is not a field' }, { field: 'memoryId', reason: 'takes …' }]
 */
export function faultsOf(schema: z.ZodType, event: unknown): EventFault[] {
  const issues = schema.safeParse(event, { error: inPlainWords }).error?.issues ?? [];
  const unknown: EventFault[] = [];
  const wrong: EventFault[] = [];
  for (const issue of issues) {
    const field = issue.path.map(String).join('.');
    if (issue.code !== 'unrecognized_keys') wrong.push({ field, reason: issue.message });
    else {
      for (const key of issue.keys) {
        const name = key.slice(0, MAX_NAME_LENGTH);
        unknown.push({ field: field ? `${field}.${name}` : name, reason: 'is not a field' });
      }
    }
  }
  return [...unknown, ...wrong];
}

/** The message of an issue, where its schema has none of its own. */
function inPlainWords(issue: z.core.$ZodRawIssue): string | undefined {
  switch (issue.code) {
    case 'invalid_type':
      return `${nameOf(issue.input)}, takes ${TYPES[issue.expected] ?? issue.expected}`;
    case 'too_small':
    case 'too_big': {
      const bound = issue.code === 'too_small' ? issue.minimum : issue.maximum;
      const size = issue.code === 'too_small' ? 'at least' : 'at most';
      const characters = bound === 1 ? 'character' : 'characters';
      return `takes ${size} ${bound}${issue.origin === 'string' ? ` ${characters}` : ''}`;
    }
    case 'invalid_format':
      return `takes ${FORMATS[issue.format] ?? issue.format}`;
    case 'invalid_union':
      return describeChoice(issue);
    default:
      return undefined;
  }
}

/** Which of several schemas applies is told by one field, where there is one. */
function describeChoice(issue: z.core.$ZodRawIssue<z.core.$ZodIssueInvalidUnion>) {
  const { discriminator, options } = issue;
  if (discriminator === undefined || !Array.isArray(options)) return undefined;
  const value = (issue.input as Record<string, unknown>)[discriminator];
  return `${nameOf(value)}, takes ${options.join(' or ')}`;
}

const TYPES: Readonly<Record<string, string>> = {
  string: 'a string',
  number: 'a finite number',
  int: 'a whole number',
  object: 'an object',
};

const FORMATS: Readonly<Record<string, string>> = {
  uuid: 'a UUID',
  datetime: 'an ISO 8601 time with a zone, such as 2024-05-15T15:00:00Z',
};

function nameOf(value: unknown): string {
  if (value === undefined) return 'is missing';
  if (value === null) return 'got null';
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) return `got ${value}`;
    return Number.isInteger(value) ? 'got a number' : 'got a fraction';
  }
  if (typeof value !== 'object') return `got a ${typeof value}`;
  return Array.isArray(value) ? 'got a list' : 'got an object';
}
