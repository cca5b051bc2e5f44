import type { Job } from 'bullmq';

import { SteadyWorker } from './steadyWorker.ts';

/**
 * Bytes of jobs' data with which a worker takes no others until it is done with some: what it does not get to is left
 * to other workers. Two or three full jobs of our own producers: writes that are being made, and the next.
 */
const ENOUGH_BYTES = 2 * 1024 * 1024;

/** A worker that holds as many jobs as it was told to, or fewer that are large. */
export class BoundedWorker<Data, Result> extends SteadyWorker<Data, Result> {
  readonly #most = this.concurrency;
  /** Of each job that is held, the bytes of its data; or a third of them, of other scripts. */
  readonly #held = new Map<Job<Data, Result>, number>();
  #heldBytes = 0;

  /** A job counts as soon as it is taken: BullMQ goes on taking others before it has the first one processed. */
  protected override createJob(
    ...args: Parameters<SteadyWorker<Data, Result>['createJob']>
  ): Job<Data, Result> {
    const job = super.createJob(...args);
    const bytes = this.textOf(job).length;
    this.#held.set(job, bytes);
    this.#count(bytes);
    return job;
  }

  protected override async callProcessJob(
    ...args: Parameters<SteadyWorker<Data, Result>['callProcessJob']>
  ): Promise<Result> {
    try {
      return await super.callProcessJob(...args);
    } finally {
      this.#letGo(args[0]); // before BullMQ completes it, and asks whether to take another with that
    }
  }

  /** BullMQ fails some jobs without having them processed. */
  override async processJob(
    ...args: Parameters<SteadyWorker<Data, Result>['processJob']>
  ): ReturnType<SteadyWorker<Data, Result>['processJob']> {
    try {
      return await super.processJob(...args);
    } finally {
      this.#letGo(args[0]);
    }
  }

  #letGo(job: Job<Data, Result>): void {
    this.#count(-(this.#held.get(job) ?? 0));
    this.#held.delete(job);
  }

  #count(bytes: number): void {
    this.#heldBytes += bytes;
    this.concurrency = this.#heldBytes < ENOUGH_BYTES ? this.#most : 1;
  }
}
