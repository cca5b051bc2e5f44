import type { ProducerConfig } from '../config.ts';
import type { InvalidEventError } from '../errors.ts';
import type { QueueLocation } from '../queues/backend.ts';
import type { EventInput, EventKind } from '../queues/events.ts';
import type { ProducerStats } from './tally.ts';

export interface ProducerOptions {
  /** Where the queues are; a function is asked at the first event that is sent. */
  queue: QueueLocation | (() => Promise<QueueLocation>);
  /**
   * Folder of the spool, for producers to the same queues and no others. Default: one within
   * ANNALS_SPOOL_DIR by the address of `queue` or, if that is a function, by the configuration.
   */
  spoolFolder?: string;
  /** Bounds and waiting times. Default: the environment's. */
  config?: ProducerConfig;
  /**
   * When an event survives `kill -9` of the process. `queue`: once the queue or the spool has it,
   * which `flush()` waits for. `sync`: it is written to the spool before `emit` returns, and
   * fsynced, for a machine that loses its power, a few milliseconds later; `flush()` waits for that.
   * Default: ANNALS_DURABILITY.
   */
  durability?: ProducerConfig['ANNALS_DURABILITY'];
  /**
   * What becomes of a new event when memory and spool are full, or the spool cannot be written:
   * `drop` (counted, and told to `onDrop`) or `throw` a {@link SpoolFullError} from `emit`, which
   * then has not accepted it. Default: ANNALS_ON_FULL.
   */
  onFull?: ProducerConfig['ANNALS_ON_FULL'];
  /** Takes the error of a wrong event instead of its being thrown. */
  onInvalid?: (error: InvalidEventError) => void;
  /**
   * Told of accepted events that are lost: for want of room, at a close too, or by a damaged file.
   * Default: a warning of the process (`AnnalsWarning`), the first time.
   */
  onDrop?: (events: number) => void;
  /**
   * Told when the queue cannot be reached, at each attempt (sending is repeated by itself), and
   * when the spool cannot be used (`SpoolError`), once until it can be again, or one of its files
   * (`file` of the error) cannot be read, each time that it is tried. Default: a warning of the
   * process for the first `SpoolError`.
   */
  onError?: (error: unknown) => void;
  /**
   * Told of a spool file with damaged places; the events beside them are delivered. Default: a
   * warning of the process, the first time.
   */
  onCorrupt?: (file: string, places: number) => void;
}

/**
 * Emits events. The four emit methods are synchronous: they check the event, copy it and return
 * its id. They do not wait, touch the network or throw for anything but a wrong event
 * ({@link InvalidEventError} with the path in `field`) or, if `onFull` says so, a full spool.
 */
export interface Producer {
  /** A memory was read, written or searched. */
  memoryAccess(event: EventInput<'memory-access'>): string;
  /** A module's state changed. */
  transition(event: EventInput<'transition'>): string;
  /** A figure about a session or an agent was taken. */
  metric(event: EventInput<'metrics'>): string;
  /** Something happened in a session. */
  sessionEvent(event: EventInput<'session-event'>): string;
  /** Emits an event whose kind is a value. */
  emit<K extends EventKind>(kind: K, event: EventInput<K>): string;
  /**
   * Resolves when the queue, or the fsynced spool, has every event that was accepted before the
   * call (and was not dropped).
   *
   * @throws {UnavailableError} when the producer was closed before that
   * @throws {SpoolError} when the disk does not confirm what was written
   */
  flush(): Promise<void>;
  /** Resolves when the buffer is less than half full: await it to emit as fast as events leave. */
  ready(): Promise<void>;
  stats(): ProducerStats;
  /**
   * Flushes and disconnects; later events are refused. Waits for the queue to take all there is, in
   * the spool too, as long as it answers. What it does not take by the deadline, or while it is
   * away, stays in the spool (`stats().spooled`) for the next producer that uses the folder.
   * Idempotent.
   *
   * @param options - `deadlineMs`: milliseconds, default ANNALS_SHUTDOWN_DEADLINE_MS
   * @throws {UnavailableError} saying how many events were dropped, if the spool had no room either
   */
  close(options?: { deadlineMs?: number }): Promise<void>;
}
