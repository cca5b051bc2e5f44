import type { Closer } from '../closer.ts';
import { startChild, type Child, type RuntimeMessage, type WorkerMessage } from './children.ts';
import { mergeClaims, type Claim } from './ledger.ts';
import type { PlanSettings } from './plan.ts';

export interface CrewSettings extends PlanSettings {
  workers: number;
}

/** What the processes have done so far, taken together. */
export interface Figures extends Omit<WorkerMessage, 'committedAt'> {
  emitted: number;
  /** Taken by the queue. */
  delivered: number;
  /** Committed a second, from the first emit to the last commit. */
  perSecond: number;
}

/** The processes of a demo: agent runtimes that emit, and workers that write. */
export class Crew {
  /** Rejects when a process fails. */
  readonly failure: Promise<never>;
  readonly #workers: Child<WorkerMessage>[];
  readonly #runtimes: Child<RuntimeMessage>[];

  constructor(settings: CrewSettings, env: NodeJS.ProcessEnv, closer: Closer, signal: AbortSignal) {
    const ending = new AbortController();
    const killedBy = AbortSignal.any([signal, ending.signal]);
    this.#workers = Array.from({ length: settings.workers }, (_, n) =>
      startChild('worker', `worker ${n}`, [], env, killedBy),
    );
    const { workers: _, ...plan } = settings;
    this.#runtimes = Array.from({ length: settings.runtimes }, (_, runtime) => {
      const args = [JSON.stringify({ ...plan, runtime })];
      return startChild('runtime', `runtime ${runtime}`, args, env, killedBy);
    });
    const endings = [...this.#workers, ...this.#runtimes].map(({ ended }) => ended);
    this.failure = new Promise((_, reject) => {
      for (const ended of endings) ended.catch(reject);
    });
    this.failure.catch(() => {}); // whoever waits for it is told
    closer.add('processes', async () => {
      ending.abort();
      await Promise.allSettled(endings);
    });
  }

  figures(): Figures {
    const runtimes = this.#runtimes.flatMap(({ latest }) => latest ?? []);
    const workers = this.#workers.flatMap(({ latest }) => latest ?? []);
    const emittedFrom = Math.min(...runtimes.map((said) => said.emittedFrom || Infinity));
    const committedAt = Math.max(0, ...workers.map((said) => said.committedAt));
    const committed = sum(workers, (said) => said.committed);
    const seconds = Math.max(1, committedAt - emittedFrom) / 1000;
    return {
      emitted: sum(runtimes, (said) => said.emitted),
      delivered: sum(runtimes, (said) => said.delivered),
      committed,
      duplicates: sum(workers, (said) => said.duplicates),
      waiting: sum(workers, (said) => said.waiting),
      perSecond: committed / seconds,
    };
  }

  /** What the runtimes say that they did, once all of them have said so. */
  claim(): Claim | undefined {
    const claims = this.#runtimes.flatMap(({ latest }) => latest?.claim ?? []);
    return claims.length === this.#runtimes.length ? mergeClaims(claims) : undefined;
  }

  /** Resolves when the workers have finished what they hold, and ended. */
  async stopWorkers(): Promise<void> {
    const all = this.#workers.map(async (worker) => {
      await worker.started; // others may have done all the work before it was ready for any
      worker.finish();
      await worker.ended;
    });
    await Promise.race([this.failure, Promise.all(all)]);
  }
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}
