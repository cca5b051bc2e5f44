import type { RunOptions } from '../backfill/step.ts';
import type { Transform } from '../backfill/transform.ts';
import { TRANSFORMS } from '../backfill/transforms/index.ts';
import { CHUNK_ROWS } from '../backfill/tuner.ts';
import { UsageError } from '../errors.ts';
import type { StartOptions } from './backfill.ts';

const DAY_MS = 24 * 60 * 60 * 1000;

export const namesOf = (tables: readonly Transform[]) => tables.map(({ name }) => name);

/** @throws {UsageError} for a name that is no table's */
export function chosen(names: readonly string[]): readonly Transform[] {
  if (names.length === 0) return TRANSFORMS;
  const found = names.map((name) => {
    const named = TRANSFORMS.find((each) => each.name === name || each.table === name);
    if (named) return named;
    throw new UsageError(`got the table ${name}; takes ${namesOf(TRANSFORMS).join(', ')}`);
  });
  return [...new Set(found)];
}

/** @throws {UsageError} naming the option that is out of its range */
export function runOptionsOf(options: StartOptions): RunOptions {
  return {
    targetMs: whole('--target-ms', options.targetMs, 10, 10_000),
    lanes: whole('--lanes', options.lanes, 1, 64),
    maxChunkRows: whole('--max-chunk-rows', options.maxChunkRows, CHUNK_ROWS.min, CHUNK_ROWS.max),
    restMs: whole('--rest-ms', options.restMs, 0, 60_000),
    limits: {
      lagMs: whole('--max-lag-ms', options.maxLagMs, 0, DAY_MS),
      ...(options.lagQuery !== undefined && { lagSql: options.lagQuery }),
      waitMs: whole('--max-wait-ms', options.maxWaitMs, 0, DAY_MS),
      vacuumMs: whole('--max-vacuum-ms', options.maxVacuumMs, 0, DAY_MS),
      writeMs: whole('--max-write-ms', options.maxWriteMs, 0, DAY_MS),
      queuedJobs: whole('--max-queued-jobs', options.maxQueuedJobs, 0, 1_000_000_000),
    },
  };
}

function whole(name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= min && value <= max) return value;
  throw new UsageError(
    `${name}: got ${text || 'nothing'}; takes a whole number from ${min} to ${max}`,
  );
}
