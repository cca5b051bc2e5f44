import { Turns } from './turns.ts';

/** The arguments of BullMQ's `move_to_completed_fetch`, or the first eight, which are those of `move_to_completed`. */
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
  /** BullMQ's statement. */
  text: string;
  args: Args;
  resolve: (answer: Answer) => void;
  reject: (error: unknown) => void;
}

/** Completions in one statement at most: each hands out a job, of up to a megabyte. */
const MAX_CALLS = 16;

/** What also hands out a job. */
const FETCHES = /\bmove_to_completed_fetch\(/;

/** Places in `Args`. */
const [QUEUE, JOB, TOKEN, FINISHED_ON, REMOVE_ALL, KEEP_AGE, KEEP_COUNT] = [
  0, 1, 2, 4, 5, 6, 7,
] as const;

/**
 * Completions of a queue's jobs, joined as the batch writer joins events: one that comes while none
 * is under way is made at once, with those of the same turn of the event loop, and those that come
 * while a statement is under way make up the next one. The jobs of a batch are done at the same
 * moment; what each would have paid for (a round trip, a commit, the removal of what is too old)
 * they pay together.
 *
 * A statement is one transaction, which holds the rows of several jobs, and waits for none: it
 * completes, hands out and removes only jobs whose rows nobody has locked. Others, who extend the
 * locks of a worker's jobs or mark them, take many rows in an order of their own; one that waited for
 * a job to be completed has its row still when it is, and waits for the next. A statement that
 * waited for such a row would wait in a circle, as BullMQ's own removal does. They may still meet
 * where BullMQ waits: delayed jobs that are due, `obliterate`, jobs with parents. PostgreSQL then ends
 * one of the two. Whatever a statement of several fails for, a deadlock, a timeout, an outage, its
 * calls are made one by one.
 */
export class JointCompletions {
  readonly #runs: Runs;
  #waiting: Call[] = [];
  #isRunning = false;
  /** The calls that are made alone, one after the other: more could take all connections that the queue has. */
  readonly #alone = new Turns();

  constructor(runs: Runs) {
    this.#runs = runs;
  }

  /**
   * Completes a job as BullMQ's statement would.
   *
   * @returns the row of the job that is handed out in its place, if there is one
   */
  complete(text: string, args: Args): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const call = { text, args, resolve, reject };
      // A worker that is about to stop takes no other job: there are few of these, and they are no match.
      if (!FETCHES.test(text)) return this.#leave(call);
      this.#waiting.push(call);
      if (this.#isRunning) return;
      this.#isRunning = true;
      setImmediate(() => void this.#makeAll());
    });
  }

  async #makeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const calls = this.#waiting.splice(0, MAX_CALLS);
      // Nobody waits for those that are left: somebody may have the row of one for long.
      for (const call of await this.#make(calls)) this.#leave(call);
    }
    this.#isRunning = false;
  }

  #leave(call: Call): void {
    void this.#alone.take(() => this.#makeAlone(call));
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
    const { completions, removal } = removeOnce(calls.map(({ args }) => args));
    // Parts of a UNION ALL are evaluated in their order, each when the one before it has ended.
    const parts = completions.map((args, index) => {
      const places = args.map(place);
      const held = `SELECT id FROM job WHERE queue = ${places[QUEUE]} AND id = ${places[JOB]}
          AND state = 'active' AND lock_token = ${places[TOKEN]} FOR UPDATE SKIP LOCKED`;
      const own = places.with(JOB, 'held.id').join(', ');
      return `SELECT ${index} AS call, next.* FROM (${held}) held
        LEFT JOIN LATERAL move_to_completed_fetch(${own}) next ON true`;
    });
    const text = removal(place, 'before') + parts.join('\nUNION ALL\n');
    let rows: Answer['rows'];
    try {
      ({ rows } = await this.#runs.joint(text, params));
    } catch {
      return calls;
    }
    return calls.filter(({ resolve }, index) => {
      const own = rows.filter(({ call }) => call === index);
      if (own.length > 0) resolve({ rows: own.filter(({ id }) => id !== null) });
      return own.length === 0;
    });
  }

  async #makeAlone({ text: completion, args, resolve, reject }: Call): Promise<void> {
    const { completions, removal } = removeOnce([args]);
    await this.#runs.alone(completion, completions[0]!).then(resolve, reject);
    const params: unknown[] = [];
    const text = removal((value) => `$${params.push(value)}`, 'after');
    // What this one leaves, the next one removes.
    if (text) await this.#runs.joint(`${text} SELECT WHERE false`, params).catch(() => {});
  }
}

/**
 * Makes the text of a `WITH` that removes jobs, or none, and has its values take their places.
 *
 * @param seen - the jobs as they are before the completions, or after them
 */
type Removal = (place: (value: unknown) => string, seen: 'before' | 'after') => string;

/**
 * Takes the removal of completed jobs that are too many or too old out of completions. A statement
 * sees the jobs as they were before it: of those that it completes, what is too many is removed as it
 * is completed.
 */
function removeOnce(all: Args[]): { completions: Args[]; removal: Removal } {
  const kept = all.filter((args) => args[REMOVE_ALL] !== true);
  const last = kept.at(-1);
  const count = (last?.[KEEP_COUNT] as number | null | undefined) ?? -1; // any below zero: all
  const age = (last?.[KEEP_AGE] as number | null | undefined) ?? -1;
  const tooMany = new Set(count < 0 ? [] : kept.slice(0, Math.max(kept.length - count, 0)));
  const completions = all.map((args) =>
    (tooMany.has(args) ? args.with(REMOVE_ALL, true) : args)
      .with(KEEP_AGE, null)
      .with(KEEP_COUNT, null),
  );
  if (!last || (count < 0 && age < 0)) return { completions, removal: () => '' };
  const removal: Removal = (place, seen) => {
    const completed = `FROM job WHERE queue = ${place(last[QUEUE])} AND state = 'completed'`;
    const others = seen === 'before' ? Math.max(count - kept.length, 0) : count;
    const limit = place(count < 0 ? null : others);
    const time = place(age < 0 ? null : (last[FINISHED_ON] as number) - age * 1000);
    return `WITH old AS (SELECT queue, id ${completed} AND (finished_at_ms <= ${time}::bigint OR id NOT IN
        (SELECT id ${completed} ORDER BY finished_at_ms DESC, seq DESC LIMIT ${limit}::int))
        FOR UPDATE SKIP LOCKED),
      removed AS (DELETE FROM job USING old WHERE job.queue = old.queue AND job.id = old.id)
      `;
  };
  return { completions, removal };
}
