import type { Contestant } from '../contestants/contestant.ts';
import { CONTESTANTS, type ContestantName } from '../contestants/index.ts';
import { median, round1 } from '../statistics.ts';
import type { Turn } from './turn.ts';

export interface ContestantReport {
  name: ContestantName;
  about: string;
  /** That it stored in each round; a slow one takes a part of the load. */
  events: number;
  /** Medians of the rounds; null for one that failed, and for what the system does not tell. */
  eventsPerSecond: number | null;
  /** The slowest and the fastest round. */
  spread: [number, number] | null;
  /** Of its own processes. */
  cpuSecondsPerMillion: number | null;
  postgresCpuSecondsPerMillion: number | null;
  redisCpuSecondsPerMillion: number | null;
  /** The greatest of its processes, and each of them. */
  peakRssMb: number | null;
  peakRssMbByProcess: Record<string, number>;
  /** Median of the rounds. */
  walBytesPerEvent: number | null;
  /** Right rows and right counters in every round. */
  verified: boolean;
  /** Memories whose `lastAccessedAt` was not the latest access, in the worst round. */
  wrongLastAccess: number | null;
  /** What went wrong, if anything did. */
  failures: string[];
}

/** @param turns - of the rounds; an error where a turn failed */
export function reportOf(name: ContestantName, turns: readonly (Turn | Error)[]): ContestantReport {
  const contestant: Contestant = CONTESTANTS[name];
  const right = turns.filter((turn): turn is Turn => !(turn instanceof Error));
  const failures = turns.flatMap((turn, n) => {
    const reason = failureOf(turn);
    return reason ? [`round ${n + 1}: ${reason}`] : [];
  });
  const verified = right.length > 0 && failures.length === 0;
  const rates = right.map(({ events, seconds }) => events / seconds);
  const perMillion = (figure: (turn: Turn) => number | null) =>
    verified ? middleOf(right.map((turn) => ((figure(turn) ?? NaN) / turn.events) * 1e6)) : null;
  const processes = Object.keys(right[0]?.peakRssMb ?? {});
  const peakRssMbByProcess = Object.fromEntries(
    processes.map((each) => [each, Math.max(...right.map((turn) => turn.peakRssMb[each] ?? 0))]),
  );
  return {
    name,
    about: contestant.about,
    events: right[0]?.events ?? 0,
    eventsPerSecond: verified ? Math.round(middleOf(rates) ?? NaN) : null,
    spread: verified ? [Math.round(Math.min(...rates)), Math.round(Math.max(...rates))] : null,
    cpuSecondsPerMillion: perMillion((turn) => turn.cpuSeconds),
    postgresCpuSecondsPerMillion: perMillion((turn) => turn.postgresCpuSeconds),
    redisCpuSecondsPerMillion: contestant.needsRedis
      ? perMillion((turn) => turn.redisCpuSeconds)
      : null,
    peakRssMb: right.length > 0 ? Math.max(...Object.values(peakRssMbByProcess)) : null,
    peakRssMbByProcess,
    walBytesPerEvent: verified
      ? Math.round(middleOf(right.map(({ walBytes, events }) => walBytes / events)) ?? NaN)
      : null,
    verified,
    wrongLastAccess:
      right.length > 0 ? Math.max(...right.map(({ verdict }) => verdict.wrongLastAccess)) : null,
    failures,
  };
}

function failureOf(turn: Turn | Error): string | undefined {
  if (turn instanceof Error) return turn.message;
  const { wrongRows, wrongCounters } = turn.verdict;
  if (wrongRows === 0 && wrongCounters === 0) return undefined;
  return `${wrongRows} wrong rows, ${wrongCounters} wrong counters`;
}

/** To one digit after the point; null where a figure is missing. */
function middleOf(values: readonly number[]): number | null {
  const middle = median(values);
  return Number.isNaN(middle) ? null : round1(middle);
}

/** Of two contestants' rates, to two digits after the point; null unless both are verified. */
export function ratio(
  reports: readonly ContestantReport[],
  of: ContestantName,
  to: ContestantName,
): number | null {
  const [rate, base] = [of, to].map(
    (name) => reports.find((report) => report.name === name)?.eventsPerSecond,
  );
  return rate && base ? Math.round((rate / base) * 100) / 100 : null;
}

/** A turn in a line. */
export function summaryOf(turn: Turn | Error): string {
  if (turn instanceof Error) return `failed: ${turn.message}`;
  const { events, seconds, verdict } = turn;
  const found = `${verdict.wrongRows} wrong rows, ${verdict.wrongCounters} wrong counters`;
  return `${events} events in ${seconds.toFixed(2)} s, ${Math.round(events / seconds)}/s; ${found}`;
}
