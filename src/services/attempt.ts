import { setTimeout as sleep } from 'node:timers/promises';

import { Prisma, type PrismaClient } from '../database/client.ts';
import { UnavailableError } from '../errors.ts';

const MAX_ROUNDS = 8;
const FIRST_PAUSE_MS = 10;

/**
 * Runs `work` as one transaction. READ COMMITTED is asked for by name, because every argument
 * about locks in this folder is: wait for the lock, then see what its last holder committed,
 * which a database whose default is stricter would not show.
 *
 * @param hasLost - which errors say that the work lost to another transaction and is to look again
 */
export function transaction<T>(
  prisma: PrismaClient,
  work: (tx: Prisma.TransactionClient) => Promise<T>,
  hasLost = hasLostRace,
): Promise<T> {
  return attempt(
    () =>
      prisma.$transaction(work, {
        isolationLevel: Prisma.TransactionIsolationLevel.ReadCommitted,
        maxWait: 10_000,
        timeout: 30_000,
      }),
    hasLost,
  );
}

/**
 * Runs `work`, which must be one transaction, again while the database says that it lost to
 * another one, after a pause with jitter.
 *
 * @throws {UnavailableError} when PostgreSQL cannot be reached; other errors as they are
 */
export async function attempt<T>(work: () => Promise<T>, hasLost = hasLostRace): Promise<T> {
  for (let round = 1; ; round++) {
    try {
      return await work();
    } catch (error) {
      if (isUnavailable(error)) {
        throw new UnavailableError(
          'PostgreSQL cannot be reached or broke off; whether the call took effect is unknown, so give it an id before you repeat it',
          { cause: error },
        );
      }
      if (!hasLost(error) || round === MAX_ROUNDS) throw error;
      await sleep(Math.random() * FIRST_PAUSE_MS * 2 ** round);
    }
  }
}

/**
 * A serialization failure, a deadlock, or a unique key that somebody who takes no locks (a
 * backfill, a person with psql) filled between our look and our write: look again.
 */
export function hasLostRace(error: unknown): boolean {
  const { kind } = driverFault(error);
  return kind === 'TransactionWriteConflict' || kind === 'UniqueConstraintViolation';
}

export function isForeignKeyViolation(error: unknown): boolean {
  return driverFault(error).kind === 'ForeignKeyConstraintViolation';
}

const UNREACHABLE_KINDS = new Set([
  'DatabaseNotReachable',
  'ConnectionClosed',
  'SocketTimeout',
  'TooManyConnections',
]);

function isUnavailable(error: unknown): boolean {
  const { kind, originalCode } = driverFault(error);
  if (kind !== undefined && UNREACHABLE_KINDS.has(kind)) return true;
  // Class 08 is the connection itself, 57P01 to 57P03 a server that stops or starts.
  if (originalCode !== undefined && /^(08...|57P0[123])$/.test(originalCode)) return true;
  if (error instanceof Prisma.PrismaClientKnownRequestError) return error.code === 'P2028';
  // The pool's and the protocol's own errors carry no code.
  return (
    error instanceof Error &&
    /connection terminated|timeout exceeded when trying to connect/i.test(error.message)
  );
}

/** What Prisma's driver adapter understood of PostgreSQL's error; it travels in `meta`. */
function driverFault(error: unknown): { kind?: string; originalCode?: string } {
  if (!(error instanceof Prisma.PrismaClientKnownRequestError)) return {};
  const adapterError = error.meta?.['driverAdapterError'] as { cause?: object } | undefined;
  return adapterError?.cause ?? {};
}
