import pino from 'pino';
import pretty from 'pino-pretty';

import type { Config } from './config.ts';

export type Logger = pino.Logger;

/**
 * Makes the process's logger. It writes to standard error, so that standard output stays free
 * for results, and synchronously, so that a crash loses no line. Connection strings and event
 * contents are redacted wherever they stand in a logged object.
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
      redact: {
        paths: [
          'url',
          '*.url',
          'databaseUrl',
          '*.databaseUrl',
          'redisUrl',
          '*.redisUrl',
          'connectionString',
          '*.connectionString',
          'events',
          '*.events',
          'data',
          '*.data',
        ],
        censor: '[redacted]',
      },
    },
    beforeLine ? { write: (line) => (beforeLine(), stream.write(line)) } : stream,
  );
}
