/** What is left to do for a run. */
export interface WorkLeft {
  /** Milliseconds of a worker. */
  busyMs: number;
  /** Lanes that work on it at once, at most. */
  lanes: number;
  /** Whose tasks come first: the lowest. */
  priority: number;
}

/**
 * When each of the runs will have ended, in milliseconds from now. They share the workers as the
 * queue deals them out: who has priority is served first, and the others' lanes get turns of the
 * same length. When one ends, the others go on with its share.
 *
 * @param slots - chunks that are being worked on at once, on average
 * @param laneRate - 0..1, what of its time a lane is at work that never waits for its turn
 *
 * @example
 * // One slot each for the first 10 ms, and then both for the second.
 * timesLeft([{ busyMs: 10, lanes: 1, priority: 1 }, { busyMs: 30, lanes: 2, priority: 10 }], 2, 1) // [10, 20]
 */
export function timesLeft(works: readonly WorkLeft[], slots: number, laneRate: number): number[] {
  const ends = works.map(() => 0);
  let open = works.map((work, index) => ({ ...work, index, rate: 0 }));
  for (let now = 0; ;) {
    open = deal(
      open.filter(({ busyMs }) => busyMs > 0),
      slots,
      laneRate,
    );
    if (open.length === 0) return ends;
    const step = Math.min(...open.map(({ busyMs, rate }) => busyMs / rate));
    now += step;
    for (const work of open) {
      const isOver = work.busyMs / work.rate <= step;
      work.busyMs = isOver ? 0 : work.busyMs - step * work.rate;
      ends[work.index] = now;
    }
  }
}

/** Gives each its part of the slots. */
function deal<Work extends WorkLeft>(works: Work[], slots: number, laneRate: number) {
  let free = slots;
  const priorities = new Set(works.map(({ priority }) => priority));
  return [...priorities]
    .toSorted((a, b) => a - b)
    .flatMap((wanted) => {
      const group = works.filter(({ priority }) => priority === wanted);
      const lanes = group.reduce((sum, work) => sum + work.lanes, 0);
      const perLane = Math.min(laneRate, free / lanes);
      free = Math.max(0, free - perLane * lanes);
      return group.map((work) => ({ ...work, rate: perLane * work.lanes }));
    });
}
