/** The arguments of BullMQ's `move_to_completed_fetch`. */
type Args = unknown[];

interface Answer {
  rows: Record<string, unknown>[];
}

/** Runs a statement. */
type Run = (text: string, params: unknown[]) => Promise<Answer>;

/** How statements are run: of several calls, which may fail, and of one, which outlasts outages. */
interface Runs {
  joint: Run;
  alone: Run;
}

interface Call {
  args: Args;
  resolve: (answer: Answer) => void;
  reject: (error: unknown) => void;
}

/** Completions in one statement at most: each hands out a job, of up to a megabyte. */
const MAX_CALLS = 16;

/** Places in `Args`. */
const [QUEUE, JOB, TOKEN, REMOVE_ALL, KEEP_AGE, KEEP_COUNT] = [0, 1, 2, 5, 6, 7] as const;

/**
 * Completions of a queue's jobs, joined as the batch writer joins events: one that comes while none
 * is under way is made at once, with those of the same turn of the event loop, and those that come
 * while a statement is under way make up the next one. The jobs of a batch are done at the same
 * moment; what each would have paid for (a round trip, a commit, the removal of what is too old)
 * they pay together.
 *
 * A statement is one transaction, which holds the rows of several jobs. Two such do not wait for each
 * other's jobs: of a job's own row it takes the lock only where nobody has it (others, who extend the
 * locks of a worker's jobs or mark them, take many rows in an order of their own), the jobs that it
 * hands out are those that nobody has, and what is removed, last of all, is completed, which nobody
 * else but a removal looks at. They may still meet where BullMQ waits: removals, delayed jobs that
 * are due, `obliterate`, jobs with parents. PostgreSQL then ends one of the two. Whatever a statement
 * of several fails for, a deadlock, a timeout, an outage, its calls are made one by one.
 */
export class JointCompletions {
  readonly #runs: Runs;
  #waiting: Call[] = [];
  #isRunning = false;
  /** The calls that are made alone, one after the other: more could take all connections that the queue has. */
  #alone: Promise<void> = Promise.resolve();

  constructor(runs: Runs) {
    this.#runs = runs;
  }

  /**
   * Completes a job.
   *
   * @returns the row of the job that is handed out in its place, if there is one
   */
  complete(args: Args): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ args, resolve, reject });
      if (this.#isRunning) return;
      this.#isRunning = true;
      setImmediate(() => void this.#makeAll());
    });
  }

  async #makeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const calls = this.#waiting.splice(0, MAX_CALLS);
      // Nobody waits for those that are left: somebody may have the row of one for long.
      for (const call of await this.#make(calls)) {
        this.#alone = this.#alone.then(() => this.#makeAlone(call));
      }
    }
    this.#isRunning = false;
  }

  /**
   * Makes calls in one statement.
   *
   * @returns those that were not made: the job is no longer this worker's, or somebody has its row
   *   locked just now, or the statement failed. BullMQ's function has its own words for what is
   *   wrong, or waits.
   */
  async #make(calls: Call[]): Promise<Call[]> {
    const params: unknown[] = [];
    const place = (value: unknown) => `$${params.push(value)}`;
    // Parts of a UNION ALL are evaluated in their order, each when the one before it has ended.
    const parts = removeOnce(calls.map(({ args }) => args)).map((args, index) => {
      const places = args.map(place);
      const held = `SELECT id FROM job WHERE queue = ${places[QUEUE]} AND id = ${places[JOB]}
          AND state = 'active' AND lock_token = ${places[TOKEN]} FOR UPDATE SKIP LOCKED`;
      const own = places.with(JOB, 'held.id').join(', ');
      return `SELECT ${index} AS call, next.* FROM (${held}) held
        LEFT JOIN LATERAL move_to_completed_fetch(${own}) next ON true`;
    });
    let rows: Answer['rows'];
    try {
      ({ rows } = await this.#runs.joint(parts.join('\nUNION ALL\n'), params));
    } catch {
      return calls;
    }
    return calls.filter(({ resolve }, index) => {
      const own = rows.filter(({ call }) => call === index);
      if (own.length > 0) resolve({ rows: own.filter(({ id }) => id !== null) });
      return own.length === 0;
    });
  }

  async #makeAlone({ args, resolve, reject }: Call): Promise<void> {
    const places = args.map((_, index) => `$${index + 1}`).join(', ');
    await this.#runs
      .alone(`SELECT * FROM move_to_completed_fetch(${places})`, args)
      .then(resolve, reject);
  }
}

/** Has the last of the jobs that are kept remove all that are too many; the others need not look. */
function removeOnce(completions: Args[]): Args[] {
  const last = completions.findLastIndex((args) => args[REMOVE_ALL] !== true);
  return completions.map((args, index) =>
    index === last ? args : args.with(KEEP_AGE, null).with(KEEP_COUNT, null),
  );
}
