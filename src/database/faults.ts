import { setTimeout as sleep } from 'node:timers/promises';

import { isDriverAdapterError } from '@prisma/driver-adapter-utils';

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
  'P0', // raised by a trigger of the database's owner
]);

const CONFLICTS = new Set([
  '40001', // serialization_failure
  '40P01', // deadlock_detected
]);

/** The SQLSTATE behind an error of Prisma or of `pg`, or undefined where the server sent none. */
export function sqlState(error: unknown): string | undefined {
  return serverError(error)?.code;
}

/** What the driver adapter, which knows these faults by name only, says when no server answered. */
const UNANSWERED: Readonly<Record<string, string>> = {
  DatabaseNotReachable: 'the server cannot be reached',
  ConnectionClosed: 'the connection was closed',
  SocketTimeout: 'the server did not answer in time',
};

/** The server's own message, without what Prisma wraps around it. */
export function serverMessage(error: unknown): string {
  const found = serverError(error);
  if (found?.message) return found.message;
  if (error instanceof Error && isDriverAdapterError(error)) {
    return UNANSWERED[error.cause.kind] ?? error.message;
  }
  return error instanceof Error ? error.message : String(error);
}

function serverError(error: unknown): { code: string; message?: string } | undefined {
  if (error instanceof Prisma.PrismaClientKnownRequestError) {
    const { driverAdapterError } = (error.meta ?? {}) as { driverAdapterError?: unknown };
    return serverError(driverAdapterError);
  }
  if (error instanceof Error && isDriverAdapterError(error)) {
    const { originalCode, originalMessage } = error.cause;
    if (originalCode === undefined) return undefined;
    return {
      code: originalCode,
      ...(originalMessage !== undefined && { message: originalMessage }),
    };
  }
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
    return /^[0-9A-Z]{5}$/.test(error.code) && 'severity' in error
      ? { code: error.code, message: error.message }
      : undefined;
  }
  return undefined;
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
