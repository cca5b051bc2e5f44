import type { Redis } from 'ioredis';
import type pg from 'pg';

import type { Config } from '../config.ts';
import type { QueueLocation } from '../queues/backend.ts';

/** `failed`: it does not work, or loses what it should keep. `warning`: it may, one day. */
export type Status = 'ok' | 'warning' | 'failed' | 'skipped';

/** What a check came to. */
export interface Verdict {
  status: Status;
  /** What was found, in words and figures. */
  found: string;
  /** What to do about it; there is one for every warning and failure. */
  advice?: string;
}

export interface Finding extends Verdict {
  check: string;
}

/** What is looked at. A server that does not answer is not there. */
export interface Patient {
  config: Config;
  databaseUrl: string;
  queue: QueueLocation;
  postgres?: pg.Client;
  redis?: Redis;
}

export const ok = (found: string): Verdict => ({ status: 'ok', found });
export const warning = (found: string, advice: string): Verdict => ({
  status: 'warning',
  found,
  advice,
});
export const failed = (found: string, advice: string): Verdict => ({
  status: 'failed',
  found,
  advice,
});
export const skipped = (found: string): Verdict => ({ status: 'skipped', found });
