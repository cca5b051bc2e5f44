import type { Config } from '../config.ts';
import { Closer } from '../closer.ts';
import type { Logger } from '../logger.ts';
import { configuredSpoolFolder, spoolFolder } from '../producers/spool/destination.ts';
import type { QueueLocation } from '../queues/backend.ts';
import { checkExposure } from './access.ts';
import { openAllQueues } from './queues.ts';
import { createServer, listen } from './server.ts';
import { startWatch } from './watch.ts';

export interface BoardOptions {
  databaseUrl: string;
  queue: QueueLocation;
  config: Config;
  log: Logger;
}

export interface Board {
  /** Where it answers, such as `http://127.0.0.1:7300`. */
  url: string;
  /**
   * Resolves when the queues are open, which is when their server answers: until then the board says
   * that it is not ready. Rejects with what no waiting mends, such as a right that is missing.
   */
  ready: Promise<unknown>;
  /** Ends all requests and closes every connection. Never rejects. */
  stop(deadlineMs: number): Promise<void>;
}

/**
 * Starts the board: overview, queues, health and metrics of a whole installation, over HTTP. It
 * listens at once, whatever the servers do, since what it says while they are away is what it is for.
 *
 * @throws {ConfigError} when it would listen beyond loopback without credentials, or cannot listen
 *
 * @example const board = await startBoard({ databaseUrl, queue, config: loadConfig(), log });
 */
export async function startBoard(options: BoardOptions): Promise<Board> {
  const { config, databaseUrl, log, queue: location } = options;
  checkExposure(config);
  const closer = new Closer(log);
  try {
    const queues = openAllQueues(location);
    closer.add('queues', () => queues.close());
    const spools = [configuredSpoolFolder(config), spoolFolder(config, location)];
    const watch = startWatch({ databaseUrl, queues, spools });
    closer.add('watch', () => watch.close());
    const server = await createServer(config, watch, queues);
    closer.add('server', () => server.close());
    const url = await listen(server, config.ANNALS_BOARD_HOST, config.ANNALS_BOARD_PORT);
    return { url, ready: queues.ready, stop: (deadlineMs) => closer.close(deadlineMs) };
  } catch (error) {
    await closer.close(5000);
    throw error;
  }
}
