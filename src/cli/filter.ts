import type { DeadLetterFilter } from '../deadLetters/read.ts';
import { UsageError } from '../errors.ts';
import { EVENT_KINDS } from '../queues/catalogue.ts';
import type { DeadLetterOptions } from './deadLetters.ts';

/**
 * Which dead letters the options mean.
 *
 * @param defaultLimit - 0 stands for all, as it does in the option
 * @throws {UsageError} naming every option that is wrong
 */
export function parseFilter(
  options: DeadLetterOptions,
  defaultLimit: number,
): { filter: DeadLetterFilter; limit: number } {
  const faults: string[] = [];
  const kind = EVENT_KINDS.find((one) => one === options.kind);
  if (options.kind !== undefined && !kind) {
    faults.push(`--kind: got ${options.kind}; takes one of ${EVENT_KINDS.join(', ')}`);
  }
  const limit = options.limit === undefined ? defaultLimit : Number(options.limit);
  if (!Number.isInteger(limit) || limit < 0 || options.limit === '') {
    faults.push(`--limit: got ${options.limit}; takes a whole number, 0 for all`);
  }
  const time = (name: 'since' | 'until') => {
    const text = options[name];
    const at = text === undefined ? undefined : parseTime(text);
    if (at !== undefined && Number.isNaN(at.getTime())) {
      faults.push(
        `--${name}: got ${text}; takes a time such as 2024-05-15T15:00:00Z, or how long ago it was, such as 30m, 2h or 7d`,
      );
    }
    return at;
  };
  const since = time('since');
  const until = time('until');
  if (faults.length > 0) throw new UsageError(faults.join('; '));
  const filter: DeadLetterFilter = {
    ...(kind && { kind }),
    ...(options.id && { ids: options.id }),
    ...(options.reason !== undefined && { reason: options.reason }),
    ...(since && { since }),
    ...(until && { until }),
  };
  return { filter, limit: limit === 0 ? Infinity : limit };
}

const UNIT_MS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

function parseTime(text: string): Date {
  const [, count, unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  if (count === undefined) return /^\d{4}-/.test(text) ? new Date(text) : new Date(Number.NaN);
  return new Date(Date.now() - Number(count) * UNIT_MS[unit as keyof typeof UNIT_MS]);
}
