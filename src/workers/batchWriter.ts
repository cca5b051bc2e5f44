import { setTimeout as sleep } from 'node:timers/promises';

import { classifyFault, retryConflicts, serverMessage, wasCancelled } from '../database/faults.ts';
import { UnavailableError } from '../errors.ts';
import { NO_PRODUCER } from '../ledger/ledger.ts';
import type { EventList } from '../queues/eventList.ts';
import type { Span } from '../queues/rank.ts';
import { rowsOf, type Batch } from './batch.ts';
import type { WrittenBatch } from './hooks.ts';
import { choose, spanOf, type Waiting, type WriteLimits } from './selection.ts';
import { Submission, type Verdict } from './submission.ts';
import type { WriteResult } from './writers/index.ts';

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
  /**
   * Writes a batch in one transaction.
   *
   * @param lane - 0 or 1; of two writes that are made at once, one has each
   */
  write: (batch: Batch, lane: number) => Promise<WriteResult>;
  /** Events in one write at most. */
  maxRows: number;
  /** Bytes of JSON in one write at most; one larger event is written alone. Default 8 MiB. */
  maxBytes?: number;
  /** Told when the database is away (with the error, at each probe) and when it is back (with null). */
  onOutage?: (error: unknown) => void;
  /** Told of each write. */
  onWrite?: (written: WrittenBatch) => void;
}

interface Pending extends Waiting {
  submission: Submission;
}

/** A write that is being made. */
interface UnderWay {
  lane: number;
  pieces: Pending[];
  span: Span;
}

/** Milliseconds without an answer after which the database counts as away, while still waited for. */
const SILENCE_MS = 10_000;

/** Milliseconds between two probes of a database that is away; doubles from the first to the last. */
const PROBE_MS = { first: 100, last: 1000 };

/** Writes that are made at once: with two, one is read or planned while the other one is written. */
export const LANES = 2;

const stopped = (cause?: unknown) =>
  new UnavailableError('the worker was told to stop while PostgreSQL was away', { cause });

/**
 * Joins the events of many jobs into one write. There is no waiting for company: an event that comes
 * while nothing is being written is written at once, and those that come while a write is under way
 * make up the next one. So batches grow with the load and only with it. A second write is made at
 * once with the first where many events wait that have nothing to do with it (`choose`).
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
  readonly #limits: WriteLimits;
  readonly #stopping = new AbortController();
  #pending: Pending[] = [];
  #underWay: UnderWay[] = [];
  #isStarting = false;

  constructor(options: BatchWriterOptions) {
    this.#options = options;
    this.#limits = { maxRows: options.maxRows, maxBytes: options.maxBytes ?? 8 * 1024 * 1024 };
  }

  /**
   * Writes events and resolves, with a verdict for each, when all of them are committed, waiting
   * or refused. While the database is away it waits for it.
   *
   * @param producer - who emitted them, where their job says so
   * @param job - its id, by which the log names the batch
   * @throws {UnavailableError} after `abandon()`; the events may or may not be committed
   */
  submit(events: EventList, producer = NO_PRODUCER, job?: string): Promise<Verdict[]> {
    const submission = new Submission(events.length);
    if (events.length > 0) {
      const piece = { events, from: 0, to: events.length, producer, job, submission, passed: 0 };
      this.#pending.push(piece);
      this.#start();
    }
    return submission.verdicts;
  }

  /**
   * Stops waiting for a database that is away: what is not written fails with `UnavailableError`,
   * and so does what is being written by a database that does not answer.
   */
  abandon(): void {
    this.#stopping.abort();
    const writing = this.#underWay.flatMap(({ pieces }) => pieces);
    failAll([...writing, ...this.#pending], stopped());
  }

  #start(): void {
    if (this.#isStarting || this.#underWay.length === LANES) return;
    this.#isStarting = true;
    // Jobs that are handed out in the same turn of the event loop share the first write.
    setImmediate(() => {
      this.#isStarting = false;
      this.#writeMore();
    });
  }

  #writeMore(): void {
    while (this.#underWay.length < LANES) {
      const pieces = this.#take();
      if (pieces.length === 0) return;
      const lane = this.#underWay[0]?.lane === 0 ? 1 : 0;
      void this.#run({ lane, pieces, span: spanOf(pieces) });
    }
  }

  async #run(write: UnderWay): Promise<void> {
    this.#underWay.push(write);
    const { lane, pieces } = write;
    await this.#write(pieces, lane).catch((error: unknown) => failAll(pieces, error));
    this.#underWay.splice(this.#underWay.indexOf(write), 1);
    this.#writeMore();
  }

  /** Whole jobs, as many as fit; of one that does not fit alone, as many events as do. */
  #take(): Pending[] {
    const underWay = this.#underWay.map(({ span }) => span);
    const pieces = choose(this.#pending, underWay, this.#limits);
    const [first] = pieces;
    if (first && pieces.length === 1) {
      const [head, rest] = divide(first, fitting(first, this.#limits));
      this.#pending.splice(this.#pending.indexOf(first), 1, ...rest);
      return head;
    }
    const chosen = new Set(pieces);
    this.#pending = this.#pending.filter((piece) => !chosen.has(piece));
    return pieces;
  }

  /**
   * Writes a batch; where the database refuses it, halves it until the offender is alone, and where
   * it has no time for it, until it has. Each part is a transaction of its own, which is safe since an event's id makes it safe to repeat.
   * One offender among j jobs of n events costs at most 2·⌈log2(j)⌉ + 2·⌈log2(n)⌉ + 1 more
   * statements: 25 in a job of 4,000.
   */
  async #write(batch: Pending[], lane: number): Promise<void> {
    try {
      this.#settle(batch, await this.#tryWrite(batch, lane));
    } catch (error) {
      const isData = classifyFault(error) === 'data';
      if (!isData && !wasCancelled(error)) throw error;
      // Perhaps it is how a foreign producer wrote them, and not what.
      if (isData && batch.filter(({ events }) => events.forgetText()).length > 0) {
        return this.#write(batch, lane);
      }
      const [first] = batch;
      if (first && rowsOf(batch) === 1) {
        this.stats.refused++;
        first.submission.note(first.from, { state: 'refused', reason: serverMessage(error) });
        first.submission.settle(1);
        return;
      }
      for (const half of halves(batch)) await this.#write(half, lane);
    }
  }

  #settle(batch: Pending[], { inserted, waiting }: WriteResult): void {
    this.stats.inserted += inserted;
    this.stats.waiting += waiting.length;
    this.stats.duplicates += rowsOf(batch) - inserted - waiting.length;
    const parentless = waiting.toSorted((a, b) => a.index - b.index).values();
    let next = parentless.next().value;
    let begin = 0;
    for (const { submission, from, to } of batch) {
      const end = begin + to - from;
      for (; next && next.index < end; next = parentless.next().value) {
        const { index, field, reference } = next;
        submission.note(from + index - begin, { state: 'waiting', field, reference });
      }
      submission.settle(to - from);
      begin = end;
    }
  }

  /** Runs the statement until the database answers for the data, however long it is away. */
  async #tryWrite(pending: Pending[], lane: number): Promise<WriteResult> {
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
        const result = await retryConflicts(() => this.#options.write(pending, lane)).finally(() =>
          clearTimeout(silence),
        );
        this.#options.onWrite?.(describe(pending, result, performance.now() - startedAt));
        if (isAway) this.#options.onOutage?.(null);
        return result;
      } catch (error) {
        // An event alone for which there is no time is no fault of its data: it is tried again.
        const isTooMuch = rowsOf(pending) > 1 && wasCancelled(error);
        if (classifyFault(error) === 'data' || isTooMuch) {
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

/** How many of a job's events go into one write, one at least. */
function fitting({ events, from, to }: Pending, { maxRows, maxBytes }: WriteLimits): number {
  if (to - from <= maxRows && events.bytes <= maxBytes) return to - from;
  let bytes = 0;
  let count = 0;
  for (; count < Math.min(maxRows, to - from); count++) {
    bytes += events.encodedAt(from + count).bytes;
    if (count > 0 && bytes > maxBytes) break;
  }
  return count;
}

/** The first events of a piece, and the others, if there are any. */
function divide(piece: Pending, count: number): [Pending[], Pending[]] {
  const middle = piece.from + count;
  const rest = middle < piece.to ? [{ ...piece, from: middle }] : [];
  return [[{ ...piece, to: middle }], rest];
}

function halves(batch: Pending[]): Pending[][] {
  const [first] = batch;
  if (batch.length === 1 && first) return divide(first, (first.to - first.from) >> 1);
  const middle = batch.length >> 1;
  return [batch.slice(0, middle), batch.slice(middle)];
}

function failAll(batch: readonly Pending[], error: unknown): void {
  for (const { submission } of batch) submission.fail(error);
}

function describe(pieces: Batch, { waiting }: WriteResult, milliseconds: number): WrittenBatch {
  const left = new Set(waiting.map(({ index }) => index));
  const occurredAt: number[] = [];
  let place = 0;
  for (const { events, from, to } of pieces) {
    for (let index = from; index < to; index++, place++) {
      if (!left.has(place)) occurredAt.push(events.occurredAt(index));
    }
  }
  return { rows: place, jobs: pieces.length, job: pieces[0]?.job, milliseconds, occurredAt };
}
