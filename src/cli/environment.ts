import { constants } from 'node:os';

import { Closer } from '../closer.ts';
import { loadConfig, unknownSettings, type Config } from '../config.ts';
import { openServers } from '../embedded/index.ts';
import { InterruptedError } from '../errors.ts';
import { createLogger, type Logger } from '../logger.ts';
import type { QueueLocation } from '../queues/backend.ts';
import { flushTraces } from '../queues/tracing.ts';
import { checkServer, waitForServer, type Server } from './reach.ts';

/** What a command works with. */
export interface Environment {
  config: Config;
  log: Logger;
  databaseUrl: string;
  queue: QueueLocation;
  /** Closes in reverse what the command opened, when its work is done or has failed. */
  closer: Closer;
  /**
   * Aborted by the first SIGINT or SIGTERM, with an `InterruptedError`, or when embedded servers
   * are gone for good, with the error that says so.
   */
  stopping: AbortSignal;
  /**
   * Waits until PostgreSQL and the queues answer, or the command is told to stop: for what has
   * something to show meanwhile, and `needs` none at its start.
   */
  untilServersAnswer: () => Promise<void>;
  /** Milliseconds that are left for stopping. */
  remainingMs: () => number;
  /** Prints a line for people: to standard output, or to standard error if that takes JSON. */
  say: (line: string) => void;
  /** Prints the command's outcome: as JSON if asked for, else as the lines given. */
  result: (json: object, lines: string) => void;
}

type Needs = 'database' | 'queue' | 'all' | 'none';

export interface EnvironmentOptions {
  json?: boolean;
  /** Which servers must answer before the command begins. */
  needs: Needs;
  /** Whether servers that are away are waited for. Default false: the command fails. */
  waits?: boolean;
  /** Whether there is nothing to finish, so that the first signal ends it at once. Default false. */
  onlyLooks?: boolean;
}

/** Milliseconds after the deadline at which a stop that still hangs is cut short. */
const LAST_RESORT_MS = 1000;

/**
 * Runs a command: reads the configuration, finds or embeds the servers, says which, makes sure
 * that they answer, does the work and closes everything, within the deadline once a signal came.
 * The exit code is what `work` returns. A second signal ends the process at once.
 */
export async function inEnvironment(
  options: EnvironmentOptions,
  work: (environment: Environment) => Promise<0 | 1>,
): Promise<void> {
  const config = loadConfig();
  const log = createLogger(config);
  for (const unknown of unknownSettings()) log.warn(unknown);
  const closer = new Closer(log);
  const stop = stopOnSignals(config.ANNALS_SHUTDOWN_DEADLINE_MS, log);
  const say = options.json ? console.error : console.log;
  closer.add('traces', flushTraces);
  try {
    const servers = await openServers(config, (line) => log.info(line));
    closer.add('embedded servers', () => servers.close());
    say(servers.explanation);
    servers.onLost((reason) => {
      log.error(reason.message);
      stop.begin(reason);
    });
    const { databaseUrl, queue } = servers;
    const untilAnswered = async (needs: Needs) => {
      for (const server of needed(needs, databaseUrl, queue)) {
        await waitForServer(server, log, stop.signal);
      }
    };
    if (options.waits) await untilAnswered(options.needs);
    else for (const server of needed(options.needs, databaseUrl, queue)) await checkServer(server);
    stop.signal.throwIfAborted();

    stop.isWorking = !options.onlyLooks;
    process.exitCode = await work({
      config,
      log,
      databaseUrl,
      queue,
      closer,
      stopping: stop.signal,
      untilServersAnswer: () => untilAnswered('all'),
      remainingMs: stop.remainingMs,
      say,
      result: (json, lines) => console.log(options.json ? JSON.stringify(json) : lines),
    });
  } catch (error) {
    // Whatever waited says merely that it was aborted; the reason says why.
    throw stop.signal.aborted && (error as Error).name === 'AbortError'
      ? stop.signal.reason
      : error;
  } finally {
    await closer.close(stop.remainingMs());
  }
}

function needed(needs: Needs, databaseUrl: string, queue: QueueLocation): readonly Server[] {
  const database: Server = { what: 'PostgreSQL', url: databaseUrl };
  const queues: Server = queue.kind === 'redis' ? { what: 'Redis', url: queue.url } : database;
  const servers: Record<Needs, readonly Server[]> = {
    none: [],
    database: [database],
    queue: [queues],
    all: [...new Set([database, queues])],
  };
  return servers[needs];
}

/**
 * The first SIGINT or SIGTERM begins the stop, which has until the deadline; the second ends the
 * process. Before the work has begun there is nothing to finish, and the first one is enough.
 */
function stopOnSignals(deadlineMs: number, log: Logger) {
  const controller = new AbortController();
  let deadline: number | undefined;
  const stop = {
    isWorking: false,
    signal: controller.signal,
    remainingMs: () =>
      Math.max(0, (deadline ?? performance.now() + deadlineMs) - performance.now()),
    begin: (reason: Error) => {
      deadline ??= performance.now() + deadlineMs;
      controller.abort(reason);
    },
  };
  const onSignal = (name: 'SIGINT' | 'SIGTERM') => {
    const isFirst = !controller.signal.aborted;
    if (!isFirst || !stop.isWorking) process.exit(128 + constants.signals[name]);
    log.info(`${name}: stopping, within ${deadlineMs / 1000} s; a second signal ends at once`);
    stop.begin(
      new InterruptedError(`${name} came before the work was done; start it again to go on`),
    );
    setTimeout(() => {
      log.error('not stopped in time; ending');
      process.exit(1);
    }, deadlineMs + LAST_RESORT_MS).unref();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  return stop;
}
