import { setTimeout as sleep } from 'node:timers/promises';

import { Prisma } from '../generated/prisma/client.ts';

/**
 * What a failed statement says about the future:
 * - `data`: this data can never be written; no retry helps.
 * - `conflict`: another transaction was in the way (serialization failure, deadlock); run it again.
 * - `unavailable`: nothing is wrong with the data; the server is away, starting, full, read-only,
 *   out of date or was told to cancel; run it again when that is over.
 */
export type Fault = 'data' | 'conflict' | 'unavailable';

/** Classes of SQLSTATE (its first two characters) that blame the data. */
const DATA_CLASSES = new Set([
  '21', // cardinality violation
  '22', // data exception: a value that its type cannot hold
  '23', // integrity constraint violation
  '44', // WITH CHECK OPTION violation
  '54', // program limit exceeded: an index row too large, nesting too deep
]);

const CONFLICTS = new Set([
  '40001', // serialization_failure
  '40P01', // deadlock_detected
]);

/** The SQLSTATE behind an error of Prisma or of `pg`, or undefined where the server sent none. */
export function sqlState(error: unknown): string | undefined {
  return serverError(error)?.code;
}

/** The server's own message, without what Prisma wraps around it. */
export function serverMessage(error: unknown): string {
  const found = serverError(error);
  if (found?.message) return found.message;
  return error instanceof Error ? error.message : String(error);
}

function serverError(error: unknown): { code: string; message?: string } | undefined {
  if (error instanceof Prisma.PrismaClientKnownRequestError) {
    const cause = (error.meta as { driverAdapterError?: { cause?: AdapterCause } } | undefined)
      ?.driverAdapterError?.cause;
    if (cause?.originalCode) {
      return {
        code: cause.originalCode,
        ...(cause.originalMessage !== undefined && { message: cause.originalMessage }),
      };
    }
    return undefined;
  }
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
    return /^[0-9A-Z]{5}$/.test(error.code) && 'severity' in error
      ? { code: error.code, message: error.message }
      : undefined;
  }
  return undefined;
}

interface AdapterCause {
  originalCode?: string;
  originalMessage?: string;
}

/** Classifies a failed statement; what is not known to blame the data does not. */
export function classifyFault(error: unknown): Fault {
  const state = sqlState(error);
  if (state === undefined) return 'unavailable';
  if (CONFLICTS.has(state)) return 'conflict';
  return DATA_CLASSES.has(state.slice(0, 2)) ? 'data' : 'unavailable';
}

/**
 * Whether the server gave the statement up for want of time (`statement_timeout`), or was told to.
 * It may have time for a smaller one.
 */
export const wasCancelled = (error: unknown): boolean => sqlState(error) === '57014';

/**
 * Runs `work` again for as long as it meets conflicts, which the design makes rare and which are
 * over in milliseconds: the delay is drawn from 0 to 10 ms, doubling up to 320 ms.
 *
 * @param attempts - default 20
 */
export async function retryConflicts<T>(work: () => Promise<T>, attempts = 20): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (attempt >= attempts || classifyFault(error) !== 'conflict') throw error;
      await sleep(Math.random() * 10 * 2 ** Math.min(attempt - 1, 5));
    }
  }
}
