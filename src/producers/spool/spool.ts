import { setTimeout as sleep } from 'node:timers/promises';

import { SpoolError } from '../../errors.ts';
import { encodeRecord, RECORD_OVERHEAD, type SpoolRecord } from './record.ts';
import { SpoolFolder } from './folder.ts';
import type { Segment } from './segment.ts';

export interface SpoolOptions {
  root: string;
  /** UUID of the producer. */
  producerId: string;
  /** Where its events go, in words. */
  destination: string;
  /** Bytes of its own on disk at most, and at most twice that with what dead producers left. */
  maxBytes: number;
  /** Told when the spool cannot be used, once until it can be again. */
  onFault: (error: SpoolError) => void;
}

/** Bytes of a segment at most, give or take a record: what a replay holds in memory at a time. */
const SEGMENT_BYTES = 4 * 1024 * 1024;

/** Milliseconds from a write to the fsync that it shares with those after it. */
const SYNC_AFTER_MS = 5;

/** Milliseconds for which a spool that could not be written counts as full. */
const REST_MS = 1000;

/** The events of a producer that are on disk: written in order, synced in groups, bounded. */
export class Spool {
  /** On disk and of ours, the oldest first; adopted ones in their order behind them. */
  readonly segments = new Set<Segment>();
  #ownBytes = 0;
  #adoptedBytes = 0;
  readonly #options: SpoolOptions;
  readonly #folder: SpoolFolder;
  readonly #segmentBytes: number;
  #active: Segment | undefined;
  #dirty = new Set<Segment>();
  #isFolderDirty = false;
  #syncing: Promise<void> | undefined;
  #nextSync: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #restsUntil = 0;
  #neverRests = false;
  #isFaulty = false;

  constructor(options: SpoolOptions) {
    this.#options = options;
    this.#folder = new SpoolFolder(options.root, options.producerId, options.destination);
    this.#segmentBytes = Math.min(SEGMENT_BYTES, options.maxBytes / 4);
  }

  /** On disk and of ours. */
  get bytes(): number {
    return this.#ownBytes + this.#adoptedBytes;
  }

  /**
   * Whether so many records of so much JSON would be taken, the disk permitting. What dead producers
   * left is no reason to lose events of our own. It counts all the same, adopted or not, or a
   * process that dies again and again would fill the disk.
   */
  hasRoom(jsonBytes: number, records = 1): boolean {
    const { maxBytes } = this.#options;
    const bytes = jsonBytes + records * RECORD_OVERHEAD;
    if (this.#ownBytes + bytes > maxBytes) return false;
    if (this.bytes + this.#folder.waitingBytes + bytes > 2 * maxBytes) return false;
    return this.#neverRests || performance.now() >= this.#restsUntil;
  }

  /** Has the disk tried each time from now on, for a producer that has no other time to try it. */
  insist(): void {
    this.#neverRests = true;
  }

  /**
   * Writes events, synchronously and all or none; they survive the process from then on, and the
   * machine once `synced()` has resolved.
   *
   * @returns the segment that has them; `undefined` when there is no room or the disk refuses
   */
  append(events: readonly { record: SpoolRecord; bytes: number }[]): Segment | undefined {
    let jsonBytes = 0;
    for (const { bytes } of events) jsonBytes += bytes;
    if (!this.hasRoom(jsonBytes, events.length)) return undefined;
    let text = '';
    for (const { record, bytes } of events) text += encodeRecord(record, bytes);
    try {
      const segment = this.#segment();
      const before = segment.bytes;
      segment.append(
        text,
        events.map(({ record }) => record.kind),
      );
      this.#ownBytes += segment.bytes - before;
      this.#mark(segment);
      if (segment.bytes >= this.#segmentBytes) this.seal();
      this.#restsUntil = 0;
      this.#isFaulty = false;
      return segment;
    } catch (error) {
      const failed = this.#active;
      this.seal();
      // It may be the file alone that takes no more: a limit of its own, a damaged block.
      if (failed && failed.bytes > 0) return this.append(events);
      if (failed) this.remove(failed); // a full disk is not to fill with empty files
      this.#restsUntil = performance.now() + REST_MS;
      this.#report(error);
      return undefined;
    }
  }

  /** Ends the segment that is written to, so that it may be replayed. */
  seal(): void {
    if (!this.#active) return;
    this.#active.seal();
    this.#mark(this.#active); // its fsync closes it
    this.#active = undefined;
  }

  /**
   * Resolves when all that was written before the call is fsynced or, where an fsync failed once, is
   * with the queue.
   *
   * @throws {SpoolError} when the disk cannot say so
   */
  async synced(): Promise<void> {
    await this.#round();
    const lost = [...this.segments].find((segment) => segment.hasFailedSync && !segment.isTaken);
    if (lost)
      throw this.#report(
        new Error(`an fsync failed, and the queue has not all of ${lost.path} yet`),
      );
  }

  /** An fsync of what was written before the call, shared with others who ask for it. */
  #round(): Promise<void> {
    const isClean = this.#dirty.size === 0 && !this.#isFolderDirty;
    const underWay = this.#syncing ?? Promise.resolve();
    if (isClean && !this.#nextSync) return underWay;
    // A round that is under way may have passed a file before the last write to it.
    this.#nextSync ??= underWay
      .catch(() => {})
      .then(() => {
        this.#nextSync = undefined;
        this.#syncing = this.#sync().finally(() => (this.#syncing = undefined));
        return this.#syncing;
      });
    return this.#nextSync;
  }

  /** The same, at once, for a process that is about to end. */
  syncSync(): void {
    try {
      for (const segment of this.#dirty) segment.syncSync();
      if (this.#isFolderDirty) this.#folder.syncSync();
    } catch (error) {
      this.#report(error);
    }
  }

  /** Whether dead producers left more, for which there is room now. */
  get canAdopt(): boolean {
    return this.#folder.waitingBytes > 0 && this.#mayAdopt();
  }

  /** Takes over what dead producers left, as far as there is room; other live ones take the rest. */
  async adopt(): Promise<void> {
    try {
      for await (const segment of this.#folder.adopt(() => this.#mayAdopt())) {
        this.segments.add(segment);
        this.#adoptedBytes += segment.bytes;
      }
    } catch (error) {
      this.#report(error);
    }
  }

  /** Removes a segment whose events are all with the queue. */
  remove(segment: Segment): void {
    try {
      segment.remove();
      this.segments.delete(segment);
      this.#dirty.delete(segment);
      if (segment.producerId === this.#options.producerId) this.#ownBytes -= segment.bytes;
      else {
        this.#adoptedBytes -= segment.bytes;
        this.#folder.tidy();
      }
    } catch (error) {
      this.#report(error);
    }
  }

  /**
   * Leaves what there is to the next producer that uses the folder.
   *
   * @param withinMs - milliseconds that the disk gets to say that it has everything; a disk that
   * hangs gets no more
   */
  async close(withinMs: number): Promise<void> {
    clearTimeout(this.#timer);
    this.seal();
    const synced = this.synced().catch(() => {}); // reported
    await Promise.race([synced, sleep(withinMs, undefined, { ref: false })]);
    try {
      this.#folder.tidy(true);
    } catch (error) {
      this.#report(error);
    }
  }

  #mayAdopt(): boolean {
    return this.#adoptedBytes < this.#options.maxBytes;
  }

  #segment(): Segment {
    if (!this.#active) {
      this.#active = this.#folder.createSegment();
      this.segments.add(this.#active);
      this.#isFolderDirty = true;
    }
    return this.#active;
  }

  #mark(segment: Segment): void {
    this.#dirty.add(segment);
    this.#timer ??= setTimeout(() => void this.synced().catch(() => {}), SYNC_AFTER_MS).unref();
  }

  async #sync(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const segments = [...this.#dirty];
    this.#dirty.clear();
    try {
      if (this.#isFolderDirty) {
        this.#isFolderDirty = false;
        await this.#folder.sync().catch((error: NodeJS.ErrnoException) => {
          // The names of all of these may be lost. (A folder that cannot be opened is tried again.)
          if (error.syscall === 'fsync') for (const one of segments) one.hasFailedSync = true;
          throw error;
        });
      }
      for (const segment of segments) await segment.sync();
    } catch (error) {
      this.#isFolderDirty = true;
      for (const segment of segments) if (this.segments.has(segment)) this.#dirty.add(segment);
      // What comes now goes to a file of its own, and the replay brings this one to the queue.
      if (this.#active?.hasFailedSync) this.seal();
      throw this.#report(error);
    }
  }

  #report(cause: unknown): SpoolError {
    const error = new SpoolError(
      `the spool ${this.#options.root} cannot be used: ${(cause as Error).message}. See to the disk, or set ANNALS_SPOOL_DIR to a folder that this user may write.`,
      { cause },
    );
    if (!this.#isFaulty) this.#options.onFault(error);
    this.#isFaulty = true;
    return error;
  }
}
