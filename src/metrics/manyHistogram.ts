import type { Metric, Registry } from 'prom-client';

interface Options {
  name: string;
  help: string;
  /** Upper ends, in order. */
  buckets: readonly number[];
  registry: Registry;
}

/** What was observed of a kind. `counts` has one more than there are buckets, for what is beyond all of them. */
interface Observed {
  counts: number[];
  sum: number;
}

/**
 * A histogram, with the label `kind`, of which each event is an observation. It reads as prom-client's own does; that
 * puts labels together anew for each observation, which takes as long as to check an event.
 */
export class ManyHistogram {
  readonly #options: Options;
  /** Kinds of which anything was observed, as with prom-client's. */
  readonly #observed = new Map<string, Observed>();

  constructor(options: Options) {
    this.#options = options;
    const metric = { name: options.name, get: () => Promise.resolve(this.#read()) };
    options.registry.registerMetric(metric as unknown as Metric);
  }

  /** @param values - finite */
  observe(kind: string, values: Iterable<number>): void {
    const { buckets } = this.#options;
    const observed = this.#observed.get(kind) ?? {
      counts: Array.from({ length: buckets.length + 1 }, () => 0),
      sum: 0,
    };
    this.#observed.set(kind, observed);
    for (const value of values) {
      let place = 0;
      while (place < buckets.length && value > (buckets[place] as number)) place++;
      observed.counts[place] = (observed.counts[place] as number) + 1;
      observed.sum += value;
    }
  }

  /** As prom-client's `get` tells it. */
  #read() {
    const { name, help, buckets } = this.#options;
    const values = [...this.#observed].flatMap(([kind, { counts, sum }]) => {
      let below = 0;
      const ends = [...buckets, '+Inf'].map((le, place) => ({
        labels: { le, kind },
        value: (below += counts[place] as number),
        metricName: `${name}_bucket`,
      }));
      return [
        ...ends,
        { labels: { kind }, value: sum, metricName: `${name}_sum` },
        { labels: { kind }, value: below, metricName: `${name}_count` },
      ];
    });
    return { name, help, type: 'histogram', values, aggregator: 'sum' };
  }
}
