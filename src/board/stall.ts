import type { QueueFigures } from './queues.ts';

/** Milliseconds of backlog without any movement after which a queue is stalled. */
export const STALL_MS = 6000;

/** How far the events of a queue have got: any number that changes whenever one is through. */
export type Progress = (queue: string) => number;

/**
 * Watches whether commits move where there is something to commit. Jobs that wait for their
 * back-off, or in a queue that somebody has paused, are no backlog.
 */
export class StallWatch {
  readonly #stillSince = new Map<string, { progress: number; at: number }>();

  /**
   * Takes a look, and names the queues that are stalled.
   *
   * @param now - milliseconds of a clock that only goes forward
   */
  look(queues: readonly QueueFigures[], progressOf: Progress, now: number): string[] {
    const stalled: string[] = [];
    for (const { name, waiting, active, isPaused } of queues) {
      const hasBacklog = !isPaused && waiting + active > 0;
      const progress = progressOf(name);
      const still = this.#stillSince.get(name);
      if (!hasBacklog || still?.progress !== progress) {
        this.#stillSince.set(name, { progress, at: now });
      } else if (now - still.at >= STALL_MS) {
        const seconds = Math.round((now - still.at) / 1000);
        stalled.push(`${name}: ${waiting + active} jobs and no commit for ${seconds} s`);
      }
    }
    return stalled;
  }
}
