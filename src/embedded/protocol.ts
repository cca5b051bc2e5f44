import type { Socket } from 'node:net';

/*
 * What a lease holder and the supervisor say to each other over the socket: one JSON line from
 * the holder, then lines from the supervisor. The open connection is the lease.
 */

/** The holder's line: what it needs. */
export interface Order {
  postgres: boolean;
  /** Path of the `redis-server` to run. */
  redis: string | null;
}

/** The supervisor's last line, when all that was ordered answers. */
export interface Granted {
  databaseUrl: string | null;
  redisUrl: string | null;
  pids: { supervisor: number; postgres: number | null; redis: number | null };
}

/** A line of the supervisor: news while the holder waits, or the outcome. */
export type Line = { news: string } | { error: string } | { granted: Granted };

/** The supervisor's command line, as JSON. */
export interface SupervisorOptions {
  /** Absolute and without links, so that all who mean the same folder say the same. */
  dataDir: string;
  /** Milliseconds from the end of the last lease to the stop. */
  graceMs: number;
}

/** Calls `listener` with each line that comes in, parsed. */
export function onEachLine<T>(socket: Socket, listener: (line: T) => void): void {
  let rest = '';
  socket.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) listener(JSON.parse(line) as T);
  });
}
