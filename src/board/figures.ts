import type { MetricsSnapshot } from '../metrics/workerMetrics.ts';
import type { WorkerReport } from '../metrics/reports.ts';

/** Every series of every worker at one moment; keyed by name and labels. */
export type Figures = ReadonlyMap<string, Series>;

interface Series {
  /** Name as it is exposed, `_bucket`, `_sum` and `_count` included. */
  name: string;
  labels: Readonly<Record<string, string | number>>;
  value: number;
}

export function figuresOf(reports: readonly WorkerReport[]): Figures {
  const figures = new Map<string, Series>();
  for (const { metrics } of reports) {
    for (const series of seriesOf(metrics)) {
      figures.set(`${series.name} ${JSON.stringify(series.labels)}`, series);
    }
  }
  return figures;
}

function seriesOf(metrics: MetricsSnapshot): Series[] {
  return metrics.flatMap(({ name, values }) =>
    values.map(({ labels, value, ...rest }) => ({
      // The series of a histogram have names of their own, of which its types do not know.
      name: 'metricName' in rest ? String(rest.metricName) : name,
      labels: labels as Series['labels'],
      value,
    })),
  );
}

/**
 * What was added between two moments. A worker that was not there counts from zero, and so does one
 * that has begun anew in between: its counters only grow, so any that fell gives it away. One that is
 * gone adds nothing.
 */
export function increase(before: Figures, now: Figures): Series[] {
  const begunAnew = new Set<unknown>();
  for (const [key, { labels, value }] of now) {
    if (value < (before.get(key)?.value ?? 0)) begunAnew.add(labels['worker']);
  }
  return Array.from(now, ([key, series]) => {
    const isNew = begunAnew.has(series.labels['worker']);
    return { ...series, value: series.value - (isNew ? 0 : (before.get(key)?.value ?? 0)) };
  });
}

/** The sum of the series of a name that have these labels. */
export function sum(
  series: Iterable<Series>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  let total = 0;
  for (const one of series) if (one.name === name && matches(one, labels)) total += one.value;
  return total;
}

/** The mean of what a histogram observed, or null if it observed nothing. */
export function mean(series: readonly Series[], name: string): number | null {
  const count = sum(series, `${name}_count`);
  return count === 0 ? null : sum(series, `${name}_sum`) / count;
}

/**
 * Below which value a share of a histogram's observations lie, interpolated within its bucket as
 * Prometheus does; null if it observed nothing. Beyond the last bucket that bucket's end is all
 * that is known.
 *
 * @param share - 0..1
 */
export function quantile(series: readonly Series[], name: string, share: number): number | null {
  const buckets = new Map<number, number>();
  for (const { name: own, labels, value } of series) {
    if (own !== `${name}_bucket`) continue;
    const end = labels['le'] === '+Inf' ? Infinity : Number(labels['le']);
    buckets.set(end, (buckets.get(end) ?? 0) + value);
  }
  const ends = [...buckets.keys()].sort((a, b) => a - b);
  const wanted = share * (buckets.get(Infinity) ?? 0);
  if (wanted === 0) return null;
  let [start, below] = [0, 0];
  for (const end of ends) {
    const upTo = buckets.get(end) ?? 0;
    if (upTo >= wanted) {
      return end === Infinity ? start : start + ((end - start) * (wanted - below)) / (upTo - below);
    }
    [start, below] = [end, upTo];
  }
  return null;
}

function matches({ labels }: Series, wanted: Readonly<Record<string, string>>): boolean {
  return Object.entries(wanted).every(([label, value]) => labels[label] === value);
}
