import { constants } from 'node:os';
import { writeFileSync } from 'node:fs';

import { Command, CommanderError, InvalidArgumentError } from 'commander';

import { Closer } from '../closer.ts';
import { applyMigrations } from '../database/migrations.ts';
import { createLogger } from '../logger.ts';
import { prepareQueues } from '../queues/backend.ts';
import { openBoard } from './board.ts';
import { openGround } from './ground.ts';
import { liveClock, recentClock } from './plan.ts';
import { number } from './progress.ts';
import { summary, table } from './report.ts';
import { run } from './run.ts';

interface Options {
  events: number;
  runtimes: number;
  workers: number;
  seed: number;
  report?: string;
  useConfigured?: true;
  board?: true;
}

/** Milliseconds in which everything is stopped and removed. */
const CLOSE_MS = 20_000;

const whole = (min: number, max: number) => (text: string) => {
  const value = Number(text);
  if (text.trim() && Number.isInteger(value) && value >= min && value <= max) return value;
  throw new InvalidArgumentError(`It takes a whole number from ${min} to ${number(max)}.`);
};

const command = new Command('demo')
  .description(
    'Starts everything in a new temporary folder, lets simulated agent runtimes emit events, some ' +
      'of them twice and some before what they refer to exists, and audits the database against ' +
      'what the runtimes say. Nothing is left behind.',
  )
  .option('--events <n>', 'different events to emit, in all', whole(1, 100_000_000), 100_000)
  .option('--runtimes <n>', 'agent runtimes, each a process', whole(1, 64), 2)
  .option('--workers <n>', 'worker processes', whole(1, 64), 1)
  .option('--seed <n>', 'number that the events are made from', whole(0, 2 ** 32 - 1), 1)
  .option('--report <file>', 'write the outcome as JSON to this file')
  .option(
    '--board',
    'serve the board meanwhile, emit 2,000 events a second at most, and hold /metrics against the tables in the end',
  )
  .option('--use-configured', 'use the servers that DATABASE_URL and REDIS_URL name')
  .addHelpText('after', '\nExit codes: 0 all checks hold, 1 they do not, 2 wrong usage.')
  .helpOption('--help', 'say this')
  .exitOverride();

async function demo(options: Options, closer: Closer, signal: AbortSignal): Promise<boolean> {
  for (const name of ['DATABASE_URL', 'REDIS_URL'] as const) {
    if (process.env[name] && !options.useConfigured) {
      console.log(`${name} is set and ignored (--use-configured has it used).`);
    }
  }
  const ground = await openGround(closer, options.useConfigured ?? false, console.log);
  signal.throwIfAborted();
  console.log(ground.explanation);
  const migrations = await applyMigrations(ground.databaseUrl, { signal });
  await prepareQueues(ground.queue);
  const { events, runtimes, workers, seed } = options;
  console.log(`${migrations.length} migrations applied`);
  console.log(`${number(events)} events · agent runtimes: ${runtimes} · workers: ${workers}\n`);
  const board = options.board && (await openBoard(ground, closer));
  if (board) console.log(`board: ${board.url}\n`);
  const plan = { seed, events, runtimes };
  const clock = (board ? liveClock : recentClock)(plan, Date.now());
  const settings = { ...plan, workers, clock };
  const { report, waited } = await run(settings, ground, closer, signal, board);
  if (options.report) writeFileSync(options.report, `${JSON.stringify(report, null, 2)}\n`);
  console.log(`\n${table(report.checks)}\n\n${summary(report, waited)}`);
  return report.ok;
}

function readOptions(): Options {
  try {
    return command.parse().opts<Options>();
  } catch (error) {
    if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
    throw error;
  }
}

/** The first signal ends the demo, and all that it started; the second does so at once. */
function interruptOnSignal(): AbortSignal {
  const interrupt = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      process.exitCode = 128 + constants.signals[signal];
      if (interrupt.signal.aborted) process.exit();
      interrupt.abort(new Error('interrupted; stopping everything'));
    });
  }
  return interrupt.signal;
}

// Whoever read our output may have had enough of it (`npm run demo | head`); that is no reason to
// leave anything behind.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

const options = readOptions();
const closer = new Closer(createLogger({ ANNALS_LOG_LEVEL: 'warn', ANNALS_LOG_FORMAT: 'auto' }));
const signal = interruptOnSignal();
try {
  const ok = await demo(options, closer, signal);
  process.exitCode ??= ok ? 0 : 1;
} catch (error) {
  process.exitCode ??= 1;
  console.error(`demo: ${(signal.aborted ? signal.reason : error).message}`);
} finally {
  await closer.close(CLOSE_MS);
}
process.exit();
