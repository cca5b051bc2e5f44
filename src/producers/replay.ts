import { SpoolError } from '../errors.ts';
import { EVENT_KINDS } from '../queues/events.ts';
import { RETRY_MS, SEND_TIMEOUT_MS, type Delivery } from './delivery.ts';
import type { Outlet } from './outlet.ts';
import { packRecords, type PackLimits } from './packing.ts';
import type { SpoolRecord } from './spool/record.ts';
import type { Segment } from './spool/segment.ts';
import type { Spool } from './spool/spool.ts';
import type { Tally } from './tally.ts';

export interface ReplayOptions {
  spool: Spool;
  outlet: Outlet;
  delivery: Delivery;
  tally: Tally;
  producerId: string;
  limits: PackLimits;
  onError: (error: unknown) => void;
  onDrop: (events: number) => void;
  /** Told of damaged places in a file. */
  onCorrupt: (file: string, places: number) => void;
}

/** Milliseconds between two looks at the spool while there is anything in it. */
const LOOK_MS = 250;

/** Milliseconds between two looks for what dead producers left. */
const ADOPT_MS = 5000;

/**
 * Sends what is in the spool, the oldest segment first and one at a time, in the background. It
 * goes on until it succeeds, and so is also what notices that the queue is back. A segment is
 * removed when the queue has it durably; was the connection lost before that was known, it is
 * sent again.
 */
export class Replay {
  /** Attempts to send a segment that failed, since the start. */
  failures = 0;
  readonly #options: ReplayOptions;
  readonly #unreadable = new Set<Segment>();
  #timer: NodeJS.Timeout | undefined;
  #adoptAt = 0;
  #retryMs = RETRY_MS.first;
  #isAwake = false;
  #isStopped = false;
  #looking: Promise<void> | undefined;
  #isTidying = false;

  constructor(options: ReplayOptions) {
    this.#options = options;
    this.#lookIn(0);
  }

  /** There is something in the spool now. */
  wake(): void {
    if (this.#isAwake) return;
    this.#isAwake = true;
    if (!this.#looking) this.#lookIn(LOOK_MS);
  }

  /** Whether there is nothing left to send or to wait for. */
  get isDone(): boolean {
    return (
      this.#adoptAt > 0 &&
      !this.#options.spool.canAdopt &&
      [...this.#options.spool.segments].every((segment) => this.#unreadable.has(segment))
    );
  }

  /** Looks without delay. */
  hurry(): void {
    this.#retryMs = RETRY_MS.first;
    if (!this.#looking) this.#lookIn(0);
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  #lookIn(milliseconds: number): void {
    clearTimeout(this.#timer);
    if (this.#isStopped) return;
    this.#timer = setTimeout(() => {
      this.#looking = this.#look()
        .catch((error: unknown) => {
          // Nothing that the disk does to us may end the agent's process, or the replay.
          this.#options.onError(error);
          this.#lookIn(RETRY_MS.last);
        })
        .finally(() => {
          this.#looking = undefined;
        });
    }, milliseconds).unref();
  }

  async #look(): Promise<void> {
    const { spool } = this.#options;
    let nextMs = LOOK_MS;
    if (performance.now() >= this.#adoptAt || spool.canAdopt) {
      await spool.adopt();
      this.#adoptAt = performance.now() + ADOPT_MS;
      this.#unreadable.clear();
    }
    for (let segment = this.#next(); segment && !this.#isStopped; segment = this.#next()) {
      const isSent = await this.#send(segment);
      this.#tidy();
      if (isSent) this.#retryMs = RETRY_MS.first;
      else {
        nextMs = this.#retryMs;
        this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS.last);
        break;
      }
    }
    this.#tidy();
    this.#isAwake = spool.segments.size > 0 || spool.canAdopt;
    this.#lookIn(this.#isAwake ? nextMs : ADOPT_MS);
  }

  #next(): Segment | undefined {
    const { spool } = this.#options;
    for (const segment of spool.segments) {
      if (!segment.isSealed && segment.unsent > 0) spool.seal();
      if (segment.wantsReplay && !this.#unreadable.has(segment)) return segment;
    }
    return undefined;
  }

  /** Whether the replay can go on to the next one. */
  async #send(segment: Segment): Promise<boolean> {
    const { delivery, onError, outlet, limits } = this.#options;
    let found: Awaited<ReturnType<Segment['read']>>;
    try {
      found = await segment.read();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
        const { path } = segment;
        onError(
          new SpoolError(
            `the spool file ${path} cannot be read: ${(error as Error).message}. It is tried again every 5 s; have this user read it, or see to the disk.`,
            { file: path, cause: error },
          ),
        );
        this.#unreadable.add(segment);
        return true;
      }
      found = { records: [], damaged: 1 }; // somebody has removed it
    }
    // All of it is sent now: what an earlier connection took of it no longer matters.
    segment.takenBy = undefined;
    const { unsent } = segment;
    try {
      for (const kind of EVENT_KINDS) {
        const records = found.records.filter((record) => record.kind === kind);
        for (const envelope of packRecords(records, segment.producerId, limits)) {
          if (this.#isStopped) return false;
          segment.taken(await outlet.send(kind, envelope, SEND_TIMEOUT_MS));
          delivery.isAway = false;
        }
      }
    } catch (error) {
      this.failures++;
      delivery.isAway = true;
      onError(error);
      return false;
    }
    segment.isInDoubt = false;
    segment.unsent -= unsent;
    this.#count(segment, unsent, found);
    return true;
  }

  /** Enters a segment that was sent into the account. */
  #count(
    segment: Segment,
    unsent: number,
    { records, damaged }: { records: SpoolRecord[]; damaged: number },
  ): void {
    const { onCorrupt, onDrop, producerId, tally } = this.#options;
    if (segment.producerId === producerId) {
      // Some of those that could not be read may be with the queue already, by way of the memory,
      // but nobody knows which. All that may be lost count as lost.
      let left = unsent;
      for (const [kind, written] of segment.written) {
        const found = records.filter((record) => record.kind === kind).length;
        const missing = Math.min(written - found, left);
        if (missing === 0) continue;
        tally.damaged(kind, missing);
        onDrop(missing);
        left -= missing;
      }
      tally.replayed(left);
    } else if (!segment.isCounted) tally.stats.adopted += records.length;
    if (damaged > 0 && !segment.isCounted) {
      tally.stats.corrupt += damaged;
      onCorrupt(segment.path, damaged);
    }
    segment.isCounted = true;
  }

  /** Removes what the queue has; the question whether it has it does not hold up the sending. */
  #tidy(): void {
    if (this.#isTidying) return;
    this.#isTidying = true;
    void this.#removeTaken()
      .catch(this.#options.onError)
      .finally(() => {
        this.#isTidying = false;
      });
  }

  async #removeTaken(): Promise<void> {
    const { outlet, spool } = this.#options;
    for (const segment of spool.segments) {
      // Of durability `sync`, when all of its events went to the queue from memory.
      if (segment.isSealed || segment.bytes === 0) continue;
      if (segment.unsent === 0 && segment.held === 0) spool.seal();
    }
    const taken = [...spool.segments].filter((segment) => segment.isTaken);
    if (taken.length === 0) return;
    // What happened before the question is what the answer is about.
    const askedAt = performance.now();
    const oldestAt = Math.min(...taken.map(({ takenAt }) => takenAt));
    const keepMs = await outlet.keepMs(askedAt - oldestAt).catch(() => Infinity); // it may pass
    if (this.#isStopped) return; // they are the next producer's
    for (const segment of taken) {
      const { takenBy, takenAt } = segment;
      // Nothing in it could be read.
      if (takenBy === undefined) spool.remove(segment);
      // Another process may have followed the one that took it, without it.
      else if (takenBy !== outlet.connection) segment.isInDoubt = true;
      else if (askedAt - takenAt >= keepMs) spool.remove(segment);
    }
  }
}
