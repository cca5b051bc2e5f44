import type { DeadLetter } from './deadLetter.ts';

/**
 * The events of a dead letter as lines that `annals emit` takes. What is no object, or has a field
 * `kind` of its own, stands whole in a field `event`, and has to be mended before it is taken.
 */
export function toLines({ kind, events }: DeadLetter): string {
  return events
    .map(({ event }) => {
      const isPlain =
        typeof event === 'object' &&
        event !== null &&
        !Array.isArray(event) &&
        !Object.hasOwn(event, 'kind');
      return `${JSON.stringify(isPlain ? { kind, ...event } : { kind, event })}\n`;
    })
    .join('');
}
