/** What a database answers a statement with. */
interface Answer {
  rows: Record<string, unknown>[];
}

interface Call {
  args: unknown[];
  resolve: (answer: Answer) => void;
  reject: (error: unknown) => void;
}

export interface GatheredCallsOptions {
  /** Of SQL: a function that returns rows, and has no other of its name. */
  name: string;
  /** Runs a statement. */
  run: (text: string, params: unknown[]) => Promise<Answer>;
  /** May change the arguments of calls that are made together. */
  prepare?: (calls: unknown[][]) => unknown[][];
}

/** Calls in one statement at most: each brings a job's data, up to a megabyte of it. */
const MAX_CALLS = 16;

/**
 * Calls of a function of the database, joined as the batch writer joins events: a call that comes
 * while none is under way is made at once, with those of the same turn of the event loop, and
 * those that come while a statement is under way make up the next one. What many would have paid
 * for each (a round trip, a commit, waiting for one another's locks) they pay together.
 *
 * A statement is one transaction, so a call that fails has none of the others done; then each is
 * made alone, as if they had never been together.
 */
export class GatheredCalls {
  readonly #options: GatheredCallsOptions;
  #waiting: Call[] = [];
  #isRunning = false;

  constructor(options: GatheredCallsOptions) {
    this.#options = options;
  }

  /** @returns the rows that this call returned */
  call(args: unknown[]): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ args, resolve, reject });
      if (this.#isRunning) return;
      this.#isRunning = true;
      setImmediate(() => void this.#run());
    });
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) await this.#make(this.#waiting.splice(0, MAX_CALLS));
    this.#isRunning = false;
  }

  async #make(calls: Call[]): Promise<void> {
    const { name, run, prepare } = this.#options;
    const params: unknown[] = [];
    const place = (value: unknown) => `$${params.push(value)}`;
    const args = calls.map((call) => call.args);
    const parts = (prepare && calls.length > 1 ? prepare(args) : args).map(
      (each, index) => `SELECT ${index} AS call, f.* FROM ${name}(${each.map(place).join(', ')}) f`,
    );
    try {
      // Parts of a UNION ALL are evaluated in their order, each when the one before it has ended.
      const { rows } = await run(parts.join('\nUNION ALL '), params);
      calls.forEach(({ resolve }, index) =>
        resolve({ rows: rows.filter((row) => row['call'] === index) }),
      );
    } catch (error) {
      if (calls.length === 1) calls[0]?.reject(error);
      else for (const call of calls) await this.#make([call]);
    }
  }
}
