import { setTimeout as sleep } from 'node:timers/promises';

import { classifyFault, retryConflicts, serverMessage } from '../database/faults.ts';
import { UnavailableError } from '../errors.ts';
import { NO_PRODUCER } from '../ledger/ledger.ts';
import type { EncodedEvent } from '../queues/events.ts';
import { toBatch, type Batch, type BatchItem } from './batch.ts';
import type { WrittenBatch } from './hooks.ts';
import type { WriteResult } from './writers/index.ts';

/** What became of one event. `committed` covers events that had been committed before. */
export type Verdict =
  | { state: 'committed' }
  /** Its parent is unknown as yet. */
  | { state: 'waiting'; field: string; reference: string }
  /** The database can never take it. */
  | { state: 'refused'; reason: string };

const COMMITTED: Verdict = { state: 'committed' };

/** Figures since the writer was made. */
export interface BatchWriterStats {
  statements: number;
  inserted: number;
  /** Events that a statement found to exist already. */
  duplicates: number;
  /** Times that an event was found to wait for its parent. */
  waiting: number;
  refused: number;
}

export interface BatchWriterOptions {
  /** Writes a batch in one transaction. */
  write: (batch: Batch) => Promise<WriteResult>;
  /** Events in one write at most. */
  maxRows: number;
  /** Bytes of JSON in one write at most; one larger event is written alone. Default 8 MiB. */
  maxBytes?: number;
  /** Told when the database is away (with the error, at each probe) and when it is back (with null). */
  onOutage?: (error: unknown) => void;
  /** Told of each write. */
  onWrite?: (written: WrittenBatch) => void;
}

interface Pending extends BatchItem {
  settle: (verdict: Verdict) => void;
  fail: (error: unknown) => void;
}

/** Milliseconds without an answer after which the database counts as away, while still waited for. */
const SILENCE_MS = 10_000;

/** Milliseconds between two probes of a database that is away; doubles from the first to the last. */
const PROBE_MS = { first: 100, last: 1000 };

const stopped = (cause?: unknown) =>
  new UnavailableError('the worker was told to stop while PostgreSQL was away', { cause });

/**
 * Joins the events of many jobs into one write at a time. There is no waiting for company: an
 * event that comes while nothing is being written is written at once, and those that come while a
 * write is under way make up the next one. So batches grow with the load and only with it.
 */
export class BatchWriter {
  readonly stats: BatchWriterStats = {
    statements: 0,
    inserted: 0,
    duplicates: 0,
    waiting: 0,
    refused: 0,
  };

  readonly #options: BatchWriterOptions;
  readonly #maxBytes: number;
  readonly #stopping = new AbortController();
  #pending: Pending[] = [];
  #writing: Pending[] = [];
  #running = false;

  constructor(options: BatchWriterOptions) {
    this.#options = options;
    this.#maxBytes = options.maxBytes ?? 8 * 1024 * 1024;
  }

  /**
   * Writes events and resolves, with a verdict for each, when all of them are committed, waiting
   * or refused. While the database is away it waits for it.
   *
   * @param producer - who emitted them, where their job says so
   * @throws {UnavailableError} after `abandon()`; the events may or may not be committed
   */
  submit(events: readonly EncodedEvent[], producer = NO_PRODUCER): Promise<Verdict[]> {
    const verdicts = events.map(
      (event) =>
        new Promise<Verdict>((settle, fail) =>
          this.#pending.push({ event, producer, settle, fail }),
        ),
    );
    this.#start();
    return Promise.all(verdicts);
  }

  /**
   * Stops waiting for a database that is away: what is not written fails with `UnavailableError`,
   * and so does what is being written by a database that does not answer.
   */
  abandon(): void {
    this.#stopping.abort();
    for (const { fail } of [...this.#writing, ...this.#pending]) fail(stopped());
  }

  #start(): void {
    if (this.#running) return;
    this.#running = true;
    // Jobs that are handed out in the same turn of the event loop share the first write.
    setImmediate(() => void this.#run());
  }

  async #run(): Promise<void> {
    while (this.#pending.length > 0) {
      const batch = (this.#writing = this.#take());
      try {
        await this.#write(batch);
      } catch (error) {
        for (const { fail } of batch) fail(error);
      }
    }
    this.#writing = [];
    this.#running = false;
  }

  #take(): Pending[] {
    let bytes = 0;
    let count = 0;
    for (const { event } of this.#pending) {
      bytes += event.bytes;
      if (count > 0 && (bytes > this.#maxBytes || count >= this.#options.maxRows)) break;
      count++;
    }
    return this.#pending.splice(0, count);
  }

  /**
   * Writes a batch; where the database refuses it, halves it until the offender is alone. Each
   * part is a transaction of its own, which is safe since an event's id makes it safe to repeat.
   * One offender among n costs at most 2·⌈log2(n)⌉ more statements: 20 among 1,000.
   */
  async #write(batch: Pending[]): Promise<void> {
    try {
      this.#settle(batch, await this.#tryWrite(batch));
    } catch (error) {
      if (classifyFault(error) !== 'data') throw error;
      if (batch.length === 1) {
        this.stats.refused++;
        batch[0]?.settle({ state: 'refused', reason: serverMessage(error) });
        return;
      }
      const middle = batch.length >> 1;
      await this.#write(batch.slice(0, middle));
      await this.#write(batch.slice(middle));
    }
  }

  #settle(batch: Pending[], { inserted, waiting }: WriteResult): void {
    this.stats.inserted += inserted;
    this.stats.waiting += waiting.length;
    this.stats.duplicates += batch.length - inserted - waiting.length;
    const parentless = new Map(waiting.map((one) => [one.index, one]));
    batch.forEach(({ settle }, index) => {
      const found = parentless.get(index);
      settle(
        found ? { state: 'waiting', field: found.field, reference: found.reference } : COMMITTED,
      );
    });
  }

  /** Runs the statement until the database answers for the data, however long it is away. */
  async #tryWrite(pending: Pending[]): Promise<WriteResult> {
    const batch = toBatch(pending);
    let isAway = false;
    const away = (error: unknown) => {
      isAway = true;
      this.#options.onOutage?.(error);
    };
    for (let probeMs = PROBE_MS.first; ; probeMs = Math.min(probeMs * 2, PROBE_MS.last)) {
      const startedAt = performance.now();
      const silence = setTimeout(
        away,
        SILENCE_MS,
        new Error(`no answer for ${SILENCE_MS / 1000} s`),
      );
      try {
        this.stats.statements++;
        const result = await retryConflicts(() => this.#options.write(batch)).finally(() =>
          clearTimeout(silence),
        );
        this.#options.onWrite?.(describe(pending, result, performance.now() - startedAt));
        if (isAway) this.#options.onOutage?.(null);
        return result;
      } catch (error) {
        if (classifyFault(error) === 'data') {
          if (isAway) this.#options.onOutage?.(null);
          throw error;
        }
        // Conflicts that go on and on are no fault of the data either.
        away(error);
        await this.#pause(probeMs, error);
      }
    }
  }

  async #pause(milliseconds: number, cause: unknown): Promise<void> {
    try {
      await sleep(milliseconds, undefined, { signal: this.#stopping.signal });
    } catch {
      throw stopped(cause);
    }
  }
}

function describe(
  batch: readonly BatchItem[],
  { waiting }: WriteResult,
  milliseconds: number,
): WrittenBatch {
  const left = new Set(waiting.map(({ index }) => index));
  const stored = left.size === 0 ? batch : batch.filter((_, index) => !left.has(index));
  return {
    rows: batch.length,
    milliseconds,
    occurredAt: stored.map(({ event }) => event.occurredAt),
  };
}
