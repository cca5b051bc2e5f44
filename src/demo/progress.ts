import type { EventKind } from '../queues/events.ts';

export interface Snapshot {
  /** Events so far, and those that will be emitted in all, as far as is known. */
  emitted: number;
  total: number;
  /** Events that the queue took and no worker has settled yet. */
  queued: number;
  committed: number;
  perSecond: number;
  /** Jobs that are waiting, delayed or active. */
  jobs: Record<EventKind, number>;
}

/** Milliseconds between two lines where there is no terminal. */
const LINE_EVERY_MS = 2000;

const BAR_WIDTH = 20;

/** Shows how far things are: as one line that is drawn again and again, or as a line now and then. */
export class Progress {
  readonly #stream: NodeJS.WriteStream;
  #printedAt = 0;
  /** What is not printed yet. */
  #last: string | undefined;

  constructor(stream: NodeJS.WriteStream = process.stdout) {
    this.#stream = stream;
  }

  show(snapshot: Snapshot): void {
    this.#last = describe(snapshot);
    if (this.#stream.isTTY) {
      // A line that wrapped could not be drawn over.
      const line = `${bar(snapshot)} ${this.#last}`.slice(0, this.#stream.columns - 1);
      this.#stream.write(`\r\x1b[K${line}`);
    } else if (performance.now() - this.#printedAt >= LINE_EVERY_MS) {
      this.#printedAt = performance.now();
      this.#stream.write(`${this.#last}\n`);
      this.#last = undefined;
    }
  }

  /** Leaves the last state standing. */
  end(): void {
    if (this.#last !== undefined) this.#stream.write(this.#stream.isTTY ? '\n' : `${this.#last}\n`);
    this.#last = undefined;
  }
}

function describe({ emitted, queued, committed, perSecond, jobs }: Snapshot): string {
  const depths = Object.entries(jobs).map(([kind, count]) => `${kind} ${count}`);
  return (
    `${number(emitted)} emitted · ${number(queued)} queued · ${number(committed)} committed · ` +
    `${number(perSecond)}/s · jobs: ${depths.join(', ')}`
  );
}

function bar({ committed, total }: Snapshot): string {
  const filled = Math.min(BAR_WIDTH, Math.floor((BAR_WIDTH * committed) / Math.max(total, 1)));
  return `${'█'.repeat(filled)}${'░'.repeat(BAR_WIDTH - filled)}`;
}

/** With commas at the thousands. */
export const number = (value: number): string => Math.round(value).toLocaleString('en-US');
