import { expect, it } from 'vitest';

import { run } from './support/process.ts';

const SCRIPT = `
import { createLogger } from './src/logger.ts';
const log = createLogger({ ANNALS_LOG_LEVEL: 'info', ANNALS_LOG_FORMAT: process.argv[1] });
const events = [{ context: 'what the agent read' }];
log.info({ job: '7', one: { two: [{ three: { events, rows: 3 } }] } }, 'deep');
log.child({ queue: 'metrics', redisUrl: 'redis://:secret@host' }).warn(
  { reason: 'cannot reach postgresql://annals:secret@host/db?x=1' },
  'tried rediss://user:secret@host:6379/0',
);
log.warn({ reason: "redis://:p@secret@host:1 and postgres://u:it's-secret@host/d" }, 'odd passwords');
log.error({ err: new Error('postgres://a:secret@host failed') }, 'thrown');
`;

it.each(['json', 'pretty'])(
  'no line of a %s log tells a password or what is in an event',
  async (format) => {
    const args = ['--import', 'tsx', '--input-type=module', '-e', SCRIPT, format];
    const { stderr } = await run(process.execPath, args, { timeoutMs: 60_000 });
    expect(stderr).not.toContain('secret');
    expect(stderr).not.toContain('what the agent read');
    for (const kept of ['"rows":3', 'metrics', 'host/db?x=1', 'host:6379/0', 'deep', 'failed']) {
      expect(stderr).toContain(kept);
    }
  },
);
