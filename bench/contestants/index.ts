import { annalsPostgres, annalsRedis } from './annals.ts';
import type { Contestant } from './contestant.ts';
import { direct } from './direct.ts';
import { floor } from './floor.ts';
import { graphileWorker } from './graphileWorker.ts';
import { oneJobPerEvent } from './oneJobPerEvent.ts';
import { pgBoss } from './pgBoss.ts';

/** In the order of their turns. */
export const CONTESTANTS = {
  floor,
  'annals-redis': annalsRedis,
  'annals-postgres': annalsPostgres,
  'one-job-per-event': oneJobPerEvent,
  'pg-boss': pgBoss,
  'graphile-worker': graphileWorker,
  direct,
} as const satisfies Record<string, Contestant>;

export type ContestantName = keyof typeof CONTESTANTS;
export const CONTESTANT_NAMES = Object.keys(CONTESTANTS) as ContestantName[];
