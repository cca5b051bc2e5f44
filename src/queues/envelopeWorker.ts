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
 * left to other workers. Some 9,000 events of the demo's sizes: a full write that is being made, and the next.
 */
const ENOUGH_BYTES = 2 * 1024 * 1024;

/** A worker whose jobs are envelopes of the kind that its queue is named after. */
export class EnvelopeWorker<Result> extends SteadyWorker<Envelope, Result> {
  /** Makes lines of events as they are read. Default: none are made. */
  linesOf: LinesOf | undefined;
  readonly #most = this.concurrency;
  #heldBytes = 0;

  /** Holds as many jobs as it was told to, or fewer that are large. */
  protected override async callProcessJob(
    ...args: Parameters<SteadyWorker<Envelope, Result>['callProcessJob']>
  ): Promise<Result> {
    const bytes = this.textOf(args[0]).length; // or a third of them, of other scripts
    this.#hold(bytes);
    try {
      return await super.callProcessJob(...args);
    } finally {
      this.#hold(-bytes); // before BullMQ completes the job, and asks whether to take another with that
    }
  }

  #hold(bytes: number): void {
    this.#heldBytes += bytes;
    this.concurrency = this.#heldBytes < ENOUGH_BYTES ? this.#most : 1;
  }

  protected override takeText(job: Job<Envelope, Result>, text: string): boolean {
    const envelope = openText(this.name as EventKind, text, this.linesOf);
    if (envelope) opened.set(job, envelope);
    return envelope !== undefined;
  }
}
