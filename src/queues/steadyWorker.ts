import { UnrecoverableError, Worker, type Job } from 'bullmq';

import { flattenJson } from '../json.ts';

/** Milliseconds that a worker pauses after a fetch that failed. */
const PAUSE_MS = 1000;

/** Where the parser stopped, if it says so. The rest of its message quotes the job, which no log may. */
const placeOf = (error: unknown) => / at position \d+/.exec((error as Error).message)?.[0] ?? '';

/** The data of a job, as it can be read. */
interface Reading {
  data: unknown;
  /** Whether it is what the queue has. */
  isAsStored: boolean;
  /** What is wrong with it, if nothing can be done with it. */
  fault?: string;
}

/** A worker that neither a queue that refuses its calls nor a job that is no job can wear out. */
export class SteadyWorker<Data, Result> extends Worker<Data, Result> {
  /** JSON text of the jobs' data, and what it holds, of those that were read. */
  readonly #texts = new WeakMap<Job<Data, Result>, string>();
  readonly #readings = new WeakMap<Job<Data, Result>, Reading>();

  /**
   * Told of a job's text before the data is read from it.
   *
   * @returns whether the job can be processed without its data being read
   */
  protected takeText(_job: Job<Data, Result>, _text: string): boolean {
    return false;
  }

  /** A job's data as it came. */
  protected textOf(job: Job<Data, Result>): string {
    return this.#texts.get(job) ?? '';
  }

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
   * A job's data is read when somebody asks for it: BullMQ would do so as it takes the job.
   *
   * How long finished jobs are kept is the catalogue's to say: `removeOnFail` of a foreign job
   * would remove the only copy of its dead letter.
   */
  protected override createJob(
    ...[json, jobId]: Parameters<Worker<Data, Result>['createJob']>
  ): Job<Data, Result> {
    const { removeOnComplete: _, removeOnFail: __, ...opts } = json.opts;
    const job = super.createJob({ ...json, opts, data: '{}' }, jobId);
    this.#texts.set(job, json.data);
    return Object.defineProperty(job, 'data', {
      get: () => this.#read(job).data as Data,
      set: (data: Data) => {
        this.#readings.set(job, { data, isAsStored: true });
      },
      enumerable: true,
    });
  }

  /**
   * A job whose text is not JSON would be handed out, found to be unreadable, given back when its
   * lock has expired, and handed out again for ever. What cannot be read is data of a kind too.
   */
  #read(job: Job<Data, Result>): Reading {
    let reading = this.#readings.get(job);
    if (!reading) {
      reading = readText(this.#texts.get(job) || '{}');
      this.#readings.set(job, reading);
    }
    return reading;
  }

  /** Whoever lists a queue reads its jobs' data: what cannot be read would hide all other jobs. */
  protected override async callProcessJob(
    ...args: Parameters<Worker<Data, Result>['callProcessJob']>
  ): Promise<Result> {
    const [job] = args;
    if (!this.takeText(job, this.textOf(job))) {
      const { data, isAsStored, fault } = this.#read(job);
      if (!isAsStored) await job.updateData(data as Data);
      if (fault !== undefined) throw new UnrecoverableError(fault);
    }
    return super.callProcessJob(...args);
  }
}

function readText(text: string): Reading {
  const flat = flattenJson(text);
  try {
    return { data: JSON.parse(flat), isAsStored: flat === text };
  } catch (error) {
    return { data: text, isAsStored: false, fault: `the job's data is not JSON${placeOf(error)}` };
  }
}
