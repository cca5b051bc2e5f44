import type { Totals } from '../ledger/totals.ts';
import { METRIC } from '../metrics/workerMetrics.ts';
import { EVENT_KINDS, type EventKind } from '../queues/catalogue.ts';
import { increase, mean, quantile, type Figures } from './figures.ts';
import type { QueueFigures } from './queues.ts';

/** What the overview's charts show of one moment. Null where there was nothing to measure. */
export interface Point {
  /** Milliseconds since 1970. */
  at: number;
  /** Events committed a second. */
  rate: Record<EventKind, number>;
  /** Seconds from occurrence to commit: of half the events, and of all but one in 20. */
  lagHalf: number | null;
  lagMost: number | null;
  /** Events in a write, on average. */
  batch: number | null;
  /** Seconds of all writes but one in 20. */
  writeMost: number | null;
  /** Jobs that wait or are active, by queue. */
  depth: Record<string, number>;
}

/** Milliseconds between two points. */
const EVERY_MS = 2000;

/** Figures are taken over this many milliseconds, so that the second at which workers report does not show. */
const WINDOW_MS = 6000;

/** Milliseconds after which a point is of the past: three should have followed it. */
const OLD_MS = 3 * EVERY_MS;

/** Points that are kept: 15 minutes. */
const KEPT = 450;

/** The last quarter of an hour, in memory: whoever opens the overview sees what led to this. */
export class History {
  #points: Point[] = [];
  #window: { at: number; figures: Figures; totals: Totals }[] = [];

  /** Takes a moment in; moments that come too soon after the last point make none. */
  add(at: number, totals: Totals, figures: Figures, queues: readonly QueueFigures[]): void {
    const sinceLast = at - (this.#points.at(-1)?.at ?? 0);
    if (sinceLast >= 0 && sinceLast < EVERY_MS - 100) return;
    if (sinceLast < 0) [this.#points, this.#window] = [[], []]; // the clock was set back
    this.#window.push({ at, figures, totals });
    while ((this.#window[1]?.at ?? at) <= at - WINDOW_MS) this.#window.shift();
    const first = this.#window[0];
    if (!first || first.at === at) return;

    const added = increase(first.figures, figures);
    const seconds = (at - first.at) / 1000;
    this.#points.push({
      at,
      rate: Object.fromEntries(
        EVENT_KINDS.map((kind) => [
          kind,
          (totals[kind].committed - first.totals[kind].committed) / seconds,
        ]),
      ) as Record<EventKind, number>,
      lagHalf: quantile(added, METRIC.lag, 0.5),
      lagMost: quantile(added, METRIC.lag, 0.95),
      batch: mean(added, METRIC.batch),
      writeMost: quantile(added, METRIC.write, 0.95),
      depth: Object.fromEntries(
        queues.map(({ name, waiting, active }) => [name, waiting + active]),
      ),
    });
    this.#points = this.#points.slice(-KEPT);
  }

  /** The last point, unless it is so old that it says nothing of now. */
  latest(now: number): Point | undefined {
    const point = this.#points.at(-1);
    return point && now - point.at < OLD_MS ? point : undefined;
  }

  /** Points later than `at` (milliseconds since 1970), in order. */
  since(at: number): Point[] {
    return this.#points.filter((point) => point.at > at);
  }
}
