import type pg from 'pg';
import type { Redis } from 'ioredis';

import { failed, ok, warning, type Patient, type Verdict } from './finding.ts';

/** Milliseconds of difference beyond which we warn, and beyond which times mean nothing. */
const SKEW_MS = { warn: 1000, fail: 60_000 };

/** Readings of each clock; the one that took least time tells most. */
const READINGS = 5;

interface Offset {
  /** Milliseconds that the other clock is ahead of ours. */
  ms: number;
  /** Milliseconds by which that may be wrong: half of the time that the reading took. */
  errorMs: number;
}

/**
 * Events bring their producer's time, rows are stamped by PostgreSQL, and jobs are due by the clock
 * of who made them: where these differ, lags are wrong and retries come early or late.
 */
export async function checkClocks({ postgres, redis }: Patient): Promise<Verdict> {
  const offsets: [string, Offset][] = [];
  if (postgres) offsets.push(['PostgreSQL', await offsetOf(() => postgresTime(postgres))]);
  if (redis) offsets.push(['Redis', await offsetOf(() => redisTime(redis))]);
  const found = offsets
    .map(([what, { ms, errorMs }]) => `${what} ${signed(ms)} ms (±${Math.ceil(errorMs)})`)
    .join(', ');
  const skewMs = Math.max(0, ...offsets.map(([, { ms, errorMs }]) => Math.abs(ms) - errorMs));
  const advice = 'Keep all machines on network time: chrony or systemd-timesyncd.';
  if (skewMs > SKEW_MS.fail) return failed(found, advice);
  return skewMs > SKEW_MS.warn ? warning(found, advice) : ok(found);
}

async function offsetOf(read: () => Promise<number>): Promise<Offset> {
  let best: Offset = { ms: 0, errorMs: Infinity };
  for (let n = 0; n < READINGS; n++) {
    const [at, since] = [Date.now(), performance.now()];
    const theirs = await read();
    const errorMs = (performance.now() - since) / 2;
    if (errorMs < best.errorMs) best = { ms: theirs - (at + errorMs), errorMs };
  }
  return best;
}

async function postgresTime(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ ms: number }>(
    'SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS ms',
  );
  return rows[0]?.ms ?? NaN;
}

async function redisTime(client: Redis): Promise<number> {
  const [seconds, microseconds] = await client.time();
  return Number(seconds) * 1000 + Number(microseconds) / 1000;
}

const signed = (ms: number) => `${ms < 0 ? '−' : '+'}${Math.round(Math.abs(ms))}`;
