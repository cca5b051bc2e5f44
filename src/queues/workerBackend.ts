import {
  assertSchemaCompatibility,
  type PostgresConnection,
  PostgresQueueBackend,
  type BackendFactory,
  type JobJson,
  type PostgresConnectionOptions,
} from 'bullmq';
import pg from 'pg';

import { Connection } from '../database/connection.ts';
import { parseJsonb } from '../json.ts';
import { outlast } from '../outage.ts';
import { JointCompletions } from './jointCompletions.ts';
import { SharedConnection } from './poolShare.ts';
import { Turns } from './turns.ts';

/** Statements that hand out a job. */
const CLAIM = /\bmove_to_(?:active|completed_fetch|failed_fetch)\(/;

/** Statements that look for a job. */
const LOOK = /\b(?:move_to_active|next_signal|next_delay)\(|\bAS present\b/;

/** Statements that complete a job. */
const COMPLETION = /\bmove_to_completed(?:_fetch)?\(/;

/** Columns of a job that are parsed, unlike its data. */
const PARSED = ['opts', 'progress', 'return_value', 'stacktrace'] as const;

/** Leaves `jsonb` as the text that it came as. */
const UNPARSED = {
  getTypeParser: (oid: number, format?: 'text' | 'binary'): unknown =>
    oid === pg.types.builtins.JSONB ? (text: string) => text : pg.types.getTypeParser(oid, format),
};

/**
 * BullMQ's connection to PostgreSQL for workers. As BullMQ's client of Redis does by itself, it
 * keeps calls back while the server is away, rather than failing them: BullMQ takes the failure of
 * a call that completes a job for a failure of the job, and repeats a failed fetch without a pause.
 *
 * A call whose answer was lost is made again. What it does then is harmless: a job that is
 * finished already cannot be finished again (BullMQ says so, and the worker goes on), and a job
 * that was handed out to nobody is found when its lock has expired.
 *
 * Jobs are looked for, and completed together, by one statement at a time: four at once cost more
 * than they gained (docs/performance.md). These wait for no job's row, but for those of delayed jobs
 * that are due, for which each of them would wait. What may wait longer does not take a turn: a
 * completion that is made alone, the renewal of locks.
 */
class PatientConnection extends SharedConnection {
  /** The text of a job's data, by its options, which BullMQ hands on as they are. */
  readonly dataOf = new WeakMap<object, string>();
  readonly #ended = new AbortController();
  #ready: Promise<void> | undefined;
  #isAway = false;

  constructor(options: PostgresConnectionOptions) {
    super(options);
    this.on('error', () => (this.#isAway = true)); // the connection on which it listens reports an outage as well
    // BullMQ opens the connection on which it listens by itself, in a module that it keeps here.
    Object.assign(this, { pgModule: { Client: Connection } });
    const pool = this.pool as pg.Pool;
    const query = pool.query.bind(pool) as (config: pg.QueryConfig) => Promise<pg.QueryResult>;
    const claimOnce = async (text: string, values: unknown[]) => {
      const answer = await query({ text, values, types: UNPARSED });
      for (const row of answer.rows as Record<string, unknown>[]) this.#read(row);
      return answer;
    };
    const run = (text: string, values: unknown[] = []) =>
      this.#outlast(() => (CLAIM.test(text) ? claimOnce(text, values) : query({ text, values })));
    const turns = new Turns();
    const completions = new JointCompletions({
      joint: (text, values) => turns.take(() => claimOnce(text, values)),
      alone: run,
    });
    this.pool.query = ((text: string, values: unknown[] = []) => {
      if (COMPLETION.test(text)) return completions.complete(text, values);
      return LOOK.test(text) ? turns.take(() => run(text, values)) : run(text, values);
    }) as typeof this.pool.query;
  }

  /**
   * BullMQ would have the data of each job parsed, written as JSON, and parsed once more. Here it
   * stays text, which `WorkerBackend` puts where BullMQ would have put what it wrote.
   */
  #read(row: Record<string, unknown>): void {
    for (const column of PARSED) {
      if (typeof row[column] === 'string') row[column] = parseJsonb(row[column]);
    }
    // Whatever a foreign producer has written for options, they are an object from here on.
    const opts = { ...(row['opts'] as object | null) };
    row['opts'] = opts;
    this.dataOf.set(opts, row['data'] as string);
    row['data'] = null;
  }

  /** BullMQ's own remembers for ever that the first attempt failed. */
  override waitUntilReady(): Promise<void> {
    this.#ready ??= this.#outlast(async () => {
      const client = await this.pool.connect();
      try {
        await assertSchemaCompatibility(client, this.schema);
      } finally {
        client.release();
      }
    });
    return this.#ready;
  }

  override getListenClient(): ReturnType<PostgresConnection['getListenClient']> {
    return this.#outlast(() => super.getListenClient());
  }

  override close(): Promise<void> {
    this.#ended.abort();
    return super.close();
  }

  async #outlast<T>(work: () => Promise<T>): Promise<T> {
    const result = await outlast(work, {
      signal: this.#ended.signal,
      onAway: (error) => this.emit('error', error),
    });
    if (this.#isAway) this.emit('ready');
    this.#isAway = false;
    return result;
  }
}

/** A job as it is handed out, if there is one: itself, its id, and how long there is to wait. */
type Claim = [JobJson | null, ...unknown[]];

class WorkerBackend extends PostgresQueueBackend {
  readonly #dataOf: PatientConnection['dataOf'];

  constructor(
    connection: PatientConnection,
    ...[name, opts]: Parameters<BackendFactory<PostgresQueueBackend, PostgresConnectionOptions>>
  ) {
    super(connection, name, opts, true, name);
    this.#dataOf = connection.dataOf;
  }

  override async moveToActive(
    ...args: Parameters<PostgresQueueBackend['moveToActive']>
  ): Promise<unknown[]> {
    return this.#withData(await super.moveToActive(...args));
  }

  override async moveToCompleted(
    ...args: Parameters<PostgresQueueBackend['moveToCompleted']>
  ): ReturnType<PostgresQueueBackend['moveToCompleted']> {
    const { result, finishedOn } = await super.moveToCompleted(...args);
    return { result: result && this.#withData(result), finishedOn };
  }

  override async moveToFailed(
    ...args: Parameters<PostgresQueueBackend['moveToFailed']>
  ): ReturnType<PostgresQueueBackend['moveToFailed']> {
    const { result, finishedOn } = await super.moveToFailed(...args);
    return { result: result && this.#withData(result), finishedOn };
  }

  #withData(claim: unknown[]): unknown[] {
    const [job, ...rest] = claim as Claim;
    return job ? [{ ...job, data: this.#dataOf.get(job.opts) }, ...rest] : claim;
  }
}

/** A back end on PostgreSQL for workers. It reports outages as `error` and their end as `ready`. */
export const createWorkerBackend: BackendFactory<
  PostgresQueueBackend,
  PostgresConnectionOptions
> = (name, opts) => new WorkerBackend(new PatientConnection(opts.connection), name, opts);
