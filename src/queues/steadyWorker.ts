import { Worker, type Job } from 'bullmq';

/** Milliseconds that a worker pauses after a fetch that failed. */
const PAUSE_MS = 1000;

/** A worker that neither a queue that refuses its calls nor a job that is no job can wear out. */
export class SteadyWorker<Data, Result> extends Worker<Data, Result> {
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
   * lock has expired, and handed out again for ever. It is a dead letter instead.
   */
  protected override createJob(
    ...[json, jobId]: Parameters<Worker<Data, Result>['createJob']>
  ): Job<Data, Result> {
    try {
      return super.createJob(json, jobId);
    } catch (error) {
      const deferredFailure = `the job's data cannot be read: ${(error as Error).message}`;
      return super.createJob({ ...json, data: 'null', deferredFailure }, jobId);
    }
  }
}
