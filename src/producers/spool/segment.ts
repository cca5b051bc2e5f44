import { closeSync, fsync, fsyncSync, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

import type { EventKind } from '../../queues/events.ts';
import { readRecords, type SpoolRecord } from './record.ts';

const fsyncFile = promisify(fsync);

/**
 * One file of a spool: written by the producer that made it until it is sealed, read whole by the
 * one that replays it, and removed when all of its events are surely with the queue.
 */
export class Segment {
  readonly path: string;
  /** The producer that accepted the events. */
  readonly producerId: string;
  bytes: number;
  /** Records written, by kind; unknown of an adopted one. */
  readonly written = new Map<EventKind, number>();
  /** Events whose only copy is here; the account of the producer calls them spooled. */
  unsent = 0;
  /** Events that are on their way to the queue otherwise: from memory, or by a call that is late. */
  held = 0;
  /** To be sent whole, for whatever reason besides `unsent`: adopted, or its sending is in doubt. */
  isInDoubt: boolean;
  /** Whether what was found in it is in the account already. */
  isCounted = false;
  isSealed: boolean;
  /**
   * Whether an fsync of it, or of its name, failed. The kernel says so once, to whoever asks first:
   * an fsync that succeeds afterwards proves nothing.
   */
  hasFailedSync = false;
  /** The connection that took the first of its events; none yet. */
  takenBy: number | undefined;
  /** When the queue last took one of its events, by `performance.now()`. */
  takenAt = 0;
  #fd: number | undefined;
  #isSyncing = false;
  #isRemoved = false;

  private constructor(path: string, producerId: string, bytes: number, fd: number | undefined) {
    this.path = path;
    this.producerId = producerId;
    this.bytes = bytes;
    this.#fd = fd;
    this.isSealed = fd === undefined;
    this.isInDoubt = this.isSealed;
  }

  static create(path: string, producerId: string): Segment {
    return new Segment(path, producerId, 0, openSync(path, 'wx', 0o600));
  }

  static adopt(path: string, producerId: string, bytes: number): Segment {
    return new Segment(path, producerId, bytes, undefined);
  }

  /** Whether it is to be read and sent; it is sent whole, so not while something else brings a part. */
  get wantsReplay(): boolean {
    return this.isSealed && this.held === 0 && (this.unsent > 0 || this.isInDoubt);
  }

  /** Whether the queue has taken every event, which it may not have on its disk yet. */
  get isTaken(): boolean {
    return this.isSealed && this.unsent === 0 && this.held === 0 && !this.isInDoubt;
  }

  /**
   * Writes records, all or none: what a full disk took of them is cut off again.
   *
   * @throws whatever the file system does
   */
  append(text: string, kinds: Iterable<EventKind>): void {
    const fd = this.#fd as number;
    const data = Buffer.from(text);
    try {
      for (let done = 0; done < data.length;) {
        done += writeSync(fd, data, done, data.length - done, this.bytes + done);
      }
    } catch (error) {
      // Should this fail too, a torn record is what every reader is prepared for.
      attempt(() => ftruncateSync(fd, this.bytes));
      throw error;
    }
    this.bytes += data.length;
    for (const kind of kinds) this.written.set(kind, (this.written.get(kind) ?? 0) + 1);
  }

  /** No more is written. The file stays open until it was fsynced. */
  seal(): void {
    this.isSealed = true;
  }

  /** Notes that the queue has taken events, over that connection. */
  taken(connection: number): void {
    this.takenBy ??= connection;
    this.takenAt = performance.now();
  }

  async sync(): Promise<void> {
    if (this.#fd === undefined) return;
    const { bytes } = this;
    this.#isSyncing = true;
    try {
      await fsyncFile(this.#fd);
    } catch (error) {
      this.hasFailedSync = true;
      throw error;
    } finally {
      this.#isSyncing = false;
    }
    // What was written meanwhile it may have missed: the next one closes the file.
    if (this.#isRemoved || (this.isSealed && this.bytes === bytes)) this.#close();
  }

  syncSync(): void {
    if (this.#fd !== undefined) fsyncSync(this.#fd);
  }

  async read(): Promise<{ records: SpoolRecord[]; damaged: number }> {
    return readRecords(await readFile(this.path));
  }

  remove(): void {
    rmSync(this.path, { force: true });
    this.isSealed = true;
    this.#isRemoved = true;
    // Its number may be another file's at once: not under an fsync, which closes it afterwards.
    if (!this.#isSyncing) this.#close();
  }

  #close(): void {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd !== undefined) attempt(() => closeSync(fd));
  }
}

function attempt(work: () => void): void {
  try {
    work();
  } catch {
    // there is nothing more to be done about it
  }
}
