import { setTimeout as sleep } from 'node:timers/promises';

import type pg from 'pg';

import { sqlState } from '../database/faults.ts';
import { BusyError, NotFoundError } from '../errors.ts';
import { inTransaction, type Sql } from './database.ts';
import type { Phase } from './lanes.ts';
import type { Transform } from './transform.ts';

// What is in the way of a command that steers a run: how it is waited for, and how it is ended.

/**
 * Cancels the statements of chunks that are under way, whose transactions then come to nothing.
 * Who has locked a lane stands in its row, as a transaction that is still open (a lane is never
 * locked by two). Only sessions of our own are cancelled, for which no privilege is needed; one
 * that is between two statements is missed, and one that is at another chunk by now does it again.
 */
export async function interrupt(
  pool: pg.Pool,
  table: string,
  phases: readonly Phase[],
): Promise<void> {
  await pool.query(
    `SELECT pg_cancel_backend(a."pid")
     FROM "BackfillRun" r JOIN "BackfillLane" l ON l."runId" = r."id"
       JOIN pg_locks h ON h."locktype" = 'transactionid' AND h."transactionid" = l.xmax AND h."granted"
       JOIN pg_stat_activity a ON a."pid" = h."pid"
     WHERE r."tableName" = $1 AND r."status" <> 'running' AND NOT l."isDone" AND l."phase" = ANY ($2)
       AND a.application_name = 'annals backfill' AND a.usename = current_user`,
    [table, phases],
  );
}

/** A lock that was not had in time, and a deadlock with a chunk. */
const IN_THE_WAY: ReadonlySet<string | undefined> = new Set(['55P03', '40P01']);
const UNDEFINED_TABLE = '42P01';

/** Milliseconds for which what is in the way of a command is waited for: longer than a worker that is frozen may hold a lane. */
const PATIENCE_MS = 25_000;

/** Runs a command as one transaction. */
export const steer = (
  pool: pg.Pool,
  transform: Transform,
  work: (sql: Sql) => Promise<boolean>,
): Promise<boolean> => persist(transform, () => inTransaction(pool, work));

/** Does `attempt` again while something is in its way. */
export async function persist(
  { name, table }: Transform,
  attempt: () => Promise<boolean>,
): Promise<boolean> {
  const giveUpAt = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (sqlState(error) === UNDEFINED_TABLE) {
        throw new NotFoundError(
          'The database lacks tables of the schema; run: npx annals migrate',
          { cause: error },
        );
      }
      const isInTheWay = IN_THE_WAY.has(sqlState(error)) || error instanceof BusyError;
      if (!isInTheWay) throw error;
      if (performance.now() > giveUpAt) {
        throw new BusyError(
          `Another session holds what the backfill of ${name} needs: a lock on the table "${table}", or one of its ` +
            'lanes. See who in pg_stat_activity (a worker of another role is not interrupted), and repeat the command',
          { cause: error },
        );
      }
      await sleep(50);
    }
  }
}
