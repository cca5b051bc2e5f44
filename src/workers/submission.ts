/** What became of one event. `committed` covers events that had been committed before. */
export type Verdict =
  | { state: 'committed' }
  /** Its parent is unknown as yet. */
  | { state: 'waiting'; field: string; reference: string }
  /** The database can never take it. */
  | { state: 'refused'; reason: string };

const COMMITTED: Verdict = { state: 'committed' };

/** What became of events that were submitted together: of most of them, that they are committed. */
export class Submission {
  readonly verdicts: Promise<Verdict[]>;
  readonly #found: Verdict[];
  #open: number;
  #resolve!: (verdicts: Verdict[]) => void;
  #reject!: (error: unknown) => void;

  constructor(events: number) {
    this.#open = events;
    this.#found = Array.from({ length: events }, () => COMMITTED);
    this.verdicts = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    if (events === 0) this.#resolve([]);
  }

  note(place: number, verdict: Verdict): void {
    this.#found[place] = verdict;
  }

  settle(events: number): void {
    this.#open -= events;
    if (this.#open === 0) this.#resolve(this.#found);
  }

  fail(error: unknown): void {
    this.#reject(error);
  }
}
