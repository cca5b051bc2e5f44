import pino from 'pino';
import pretty from 'pino-pretty';

import type { Config } from './config.ts';

export type Logger = pino.Logger;

/** Fields that hold connection strings or events, at whatever depth of what is logged. */
const SECRET = new Set(['url', 'databaseUrl', 'redisUrl', 'connectionString', 'events', 'data']);

/** User and password of a connection string, wherever it stands in a line; a password may hold an `@`. */
const CREDENTIALS = /\b(postgres(?:ql)?|rediss?|https?):\/\/[^\s"/?#]*@/gi;

/**
 * Makes the process's logger. It writes to standard error, so that standard output stays free
 * for results, and synchronously, so that a crash loses no line. Connection strings and event
 * contents are redacted wherever they stand in a logged object, and credentials of a connection
 * string in any text.
 *
 * @param beforeLine - called before each line, such as to take away what is drawn on the terminal
 *
 * @example const log = createLogger(loadConfig());
 */
export function createLogger(
  config: Pick<Config, 'ANNALS_LOG_LEVEL' | 'ANNALS_LOG_FORMAT'>,
  beforeLine?: () => void,
): Logger {
  const format = config.ANNALS_LOG_FORMAT;
  const usePretty = format === 'pretty' || (format === 'auto' && process.stderr.isTTY);
  const stream = usePretty
    ? pretty({
        destination: 2,
        sync: true,
        ignore: 'pid,hostname',
        singleLine: true,
        translateTime: 'SYS:HH:MM:ss.l',
      })
    : pino.destination({ dest: 2, sync: true });
  return pino(
    {
      name: 'annals',
      level: config.ANNALS_LOG_LEVEL,
      formatters: { log: redact, bindings: redact },
    },
    {
      write: (line) => {
        beforeLine?.();
        stream.write(line.replaceAll(CREDENTIALS, '$1://[redacted]@'));
      },
    },
  );
}

function redact(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name,
      SECRET.has(name) ? '[redacted]' : redactValue(value),
    ]),
  );
}

function redactValue(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(redactValue);
  const isPlain = typeof value === 'object' && value?.constructor === Object;
  return isPlain ? redact(value as Record<string, unknown>) : value;
}
