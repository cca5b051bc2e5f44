import type { z } from 'zod';

import type { EVENT_SCHEMAS, EventKind } from '../../queues/events.ts';
import type { Table } from './rows.ts';

/** An event as a job has it. */
export type StoredEvent<Kind extends EventKind> = z.output<(typeof EVENT_SCHEMAS)[Kind]>;

/** What one statement did with a batch. */
export interface WriteResult {
  /** Rows that did not exist before; the rest of the batch was there already or waits. */
  inserted: number;
  /** Events whose parent does not exist (yet). */
  waiting: {
    /** Place in the batch, from 0. */
    index: number;
    /** The event's field that names the parent, such as `memoryId`. */
    field: string;
    /** The unknown id. */
    reference: string;
  }[];
}

/** What an insert does with an event that is a row already. */
export const UNLESS_KNOWN = 'ON CONFLICT ("id") DO NOTHING';

/**
 * How a kind's events become rows. Any batch is written by one SQL statement, which is one transaction; one that is
 * likely to be new, by COPY (see `createCopy`). The statement takes a JSON
 * array of checked events as `$4` and has the parts `event`, `inserted` and `waiting`; the end,
 * which is the same for all kinds, counts them in the ledger and returns what was done.
 *
 * What each statement keeps to, so that any number of workers may run it at once, on the same
 * events, in any order:
 *
 * 1. Parents are locked first, in the order of their ids, and all of them before the first insert
 *    (the insert reads a sort, which reads every locked parent before it yields a row). Two
 *    batches with parents in common therefore queue up instead of deadlocking. They are found by an
 *    array of ids and locked by a join: of a row that another transaction changed meanwhile,
 *    PostgreSQL checks the newest version against the condition once more, and searching an array
 *    of thousands for each made two workers on the same memories 20 times as slow.
 * 2. Events are inserted in the order of their ids, so that two batches with events in common
 *    meet these in the same order as well.
 * 3. The event's id is the primary key and a conflict does nothing (`UNLESS_KNOWN` ends each
 *    insert): an event that is being inserted by another transaction is waited for, then found to
 *    exist. Only rows that this statement really inserted are returned by the insert, and only these
 *    are counted.
 * 4. Nothing depends on the order of arrival: counters are sums, "latest" is `greatest`.
 *
 * `json_to_recordset` gives JSON values as `json`, which the insert casts: it holds all memory that
 * its rows took to make until the last is made, and `jsonb` takes much (docs/performance.md).
 */
export interface Writer {
  sql: string;
  /** The tables of the kind's rows, as new events are copied into them. */
  tables: readonly Table[];
  /**
   * A statement that counts new events in their parents, which it changes in the order of their ids. It takes a JSON array as
   * `$1`: of each parent its id, how many events it has (`events`), and when the latest occurred (`latest`).
   */
  count?: string;
}
