import type { PlannedEvent } from '../../src/demo/plan.ts';

/** Where a contestant works. */
export interface Place {
  databaseUrl: string;
  redisUrl: string;
  /** For files of its own. */
  folder: string;
}

/** What runs until the turn is over. */
export interface Running {
  stop(): Promise<void>;
}

/** Emits the events that it was given before; resolves when they are emitted, or stored. */
export type Emit = () => Promise<void>;

/**
 * A way to bring events into the tables. Each function runs in a process of its own kind, and what
 * it needs is opened before the clock starts.
 */
export interface Contestant {
  /** For people: what it does, in a few words. */
  about: string;
  /** Takes only so many events of the load, for it is slow. Default: all. */
  maxEvents?: number;
  needsRedis?: boolean;
  /** Once, before all else. */
  prepare?(place: Place): Promise<void>;
  /** In each of the producer processes. */
  produce(place: Place, events: readonly PlannedEvent[]): Promise<Emit>;
  /**
   * In the worker process; without one, events are stored when they are emitted.
   *
   * @param committed - to be told how many events have been committed since it was told last
   */
  consume?(place: Place, committed: (events: number) => void): Promise<Running>;
  /** Once, when all are emitted, and on the clock. */
  finish?(place: Place): Promise<void>;
}
