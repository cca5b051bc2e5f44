import type pg from 'pg';

import type { Recount } from '../services/sessionCounts.ts';

/** The last recount that came to its end, scheduled or by hand, and the drift that it found and healed. */
export interface LastRecount extends Recount {
  /** Milliseconds since 1970. */
  finishedAt: number;
  tookMs: number;
}

const READ = `
SELECT "checked", "agents", "drift", "tookMs",
  (extract(epoch FROM "finishedAt") * 1000)::float8 AS "finishedAt"
FROM "SessionRecount"`;

/** The last recount, or null where none has ended. */
export async function readLastRecount(pool: Pick<pg.Pool, 'query'>): Promise<LastRecount | null> {
  const { rows } = await pool.query<LastRecount>(READ);
  return rows[0] ?? null;
}
