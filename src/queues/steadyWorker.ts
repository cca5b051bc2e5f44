import { UnrecoverableError, Worker, type Job } from 'bullmq';

import { flattenJson } from '../json.ts';

/** Milliseconds that a worker pauses after a fetch that failed. */
const PAUSE_MS = 1000;

/** What jobs were parsed from. */
const texts = new WeakMap<Job, string>();

/** The JSON text of a job's data as the queue had it; absent where it had to be mended. */
export const textOf = (job: Job): string | undefined => texts.get(job);

/** Where the parser stopped, if it says so. The rest of its message quotes the job, which no log may. */
const placeOf = (error: unknown) => / at position \d+/.exec((error as Error).message)?.[0] ?? '';

/** A worker that neither a queue that refuses its calls nor a job that is no job can wear out. */
export class SteadyWorker<Data, Result> extends Worker<Data, Result> {
  /** Jobs whose data had to be made readable, with what is wrong if nothing else is. */
  readonly #mended = new WeakMap<Job<Data, Result>, string | undefined>();

  /** BullMQ repeats a fetch that failed at once, which is a busy loop while it goes on failing. */
  protected override async moveToActive(
    ...args: Parameters<Worker<Data, Result>['moveToActive']>
  ): Promise<Job<Data, Result>> {
    try {
      return await super.moveToActive(...args);
    } catch (error) {
      await this.delay(PAUSE_MS);
      throw error;
    }
  }

  /**
   * A job whose text is not JSON would be handed out, found to be unreadable, given back when its
   * lock has expired, and handed out again for ever. What cannot be read is data of a kind too.
   *
   * How long finished jobs are kept is the catalogue's to say: `removeOnFail` of a foreign job
   * would remove the only copy of its dead letter.
   */
  protected override createJob(
    ...[json, jobId]: Parameters<Worker<Data, Result>['createJob']>
  ): Job<Data, Result> {
    const { removeOnComplete: _, removeOnFail: __, ...opts } = json.opts;
    const data = flattenJson(json.data);
    try {
      const job = super.createJob({ ...json, opts, data }, jobId);
      if (data !== json.data) this.#mended.set(job, undefined);
      else texts.set(job, data);
      return job;
    } catch (error) {
      const job = super.createJob({ ...json, opts, data: JSON.stringify(json.data) }, jobId);
      this.#mended.set(job, `the job's data is not JSON${placeOf(error)}`);
      return job;
    }
  }

  /** Whoever lists a queue reads its jobs' data: what cannot be read would hide all other jobs. */
  protected override async callProcessJob(
    ...args: Parameters<Worker<Data, Result>['callProcessJob']>
  ): Promise<Result> {
    const [job] = args;
    if (this.#mended.has(job)) await job.updateData(job.data);
    const fault = this.#mended.get(job);
    if (fault !== undefined) throw new UnrecoverableError(fault);
    return super.callProcessJob(...args);
  }
}
