import type { Job } from 'bullmq';

import type { EventKind } from './catalogue.ts';
import { openText, type Envelope, type OpenedEnvelope } from './envelope.ts';
import type { LinesOf } from './eventList.ts';
import { SteadyWorker } from './steadyWorker.ts';

/** Jobs that are right as they are, opened. */
const opened = new WeakMap<Job, OpenedEnvelope>();

/** What is in a job, if its text alone told; the data of any other is to be opened. */
export const openedOf = (job: Job): OpenedEnvelope | undefined => opened.get(job);

/**
 * Bytes of JSON in jobs with which a worker takes no others until it has written some: what it does not get to is
 * left to other workers. Two or three full jobs of our own: writes that are being made, and the next.
 */
const ENOUGH_BYTES = 2 * 1024 * 1024;

/** A worker whose jobs are envelopes of the kind that its queue is named after. */
export class EnvelopeWorker<Result> extends SteadyWorker<Envelope, Result> {
  /** Makes lines of events as they are read. Default: none are made. */
  linesOf: LinesOf | undefined;
  readonly #most = this.concurrency;
  /** Of each job that is held, its bytes; or a third of them, of other scripts. */
  readonly #held = new Map<Job<Envelope, Result>, number>();
  #heldBytes = 0;

  /** BullMQ takes as many as it may before it has any of them processed, so they count from here on. */
  protected override createJob(
    ...args: Parameters<SteadyWorker<Envelope, Result>['createJob']>
  ): Job<Envelope, Result> {
    const job = super.createJob(...args);
    const bytes = this.textOf(job).length;
    this.#held.set(job, bytes);
    this.#count(bytes);
    return job;
  }

  protected override async callProcessJob(
    ...args: Parameters<SteadyWorker<Envelope, Result>['callProcessJob']>
  ): Promise<Result> {
    try {
      return await super.callProcessJob(...args);
    } finally {
      this.#letGo(args[0]); // before BullMQ completes it, and asks whether to take another with that
    }
  }

  /** Not all jobs that are taken get as far as to be processed. */
  override async processJob(
    ...args: Parameters<SteadyWorker<Envelope, Result>['processJob']>
  ): ReturnType<SteadyWorker<Envelope, Result>['processJob']> {
    try {
      return await super.processJob(...args);
    } finally {
      this.#letGo(args[0]);
    }
  }

  #letGo(job: Job<Envelope, Result>): void {
    this.#count(-(this.#held.get(job) ?? 0));
    this.#held.delete(job);
  }

  /** Holds as many jobs as it was told to, or fewer that are large. */
  #count(bytes: number): void {
    this.#heldBytes += bytes;
    this.concurrency = this.#heldBytes < ENOUGH_BYTES ? this.#most : 1;
  }

  protected override takeText(job: Job<Envelope, Result>, text: string): boolean {
    const envelope = openText(this.name as EventKind, text, this.linesOf);
    if (envelope) opened.set(job, envelope);
    return envelope !== undefined;
  }
}
