import { startBoard, type Board } from '../../board/board.ts';
import { InterruptedError } from '../../errors.ts';
import { inEnvironment, type Environment } from '../environment.ts';
import { ensureSchema } from '../schema.ts';
import { untilAborted } from '../stopped.ts';

export async function showBoard(): Promise<void> {
  await inEnvironment({ needs: 'none' }, async (environment) => {
    const { config, stopping } = environment;
    const stopped = untilAborted(stopping);
    const board = await openBoard(environment);
    const showing = async () => {
      await environment.untilServersAnswer();
      // A database of its owner's is shown as it is: /readyz says what is pending.
      if (config.DATABASE_URL === undefined) await ensureSchema(environment);
      await board.ready;
    };
    await Promise.race([stopped, showing()]);
    await stopped;
    return stopping.reason instanceof InterruptedError ? 0 : 1;
  });
}

/** Starts the board and says where it is. What it shows while servers are away is that they are. */
export async function openBoard(environment: Environment): Promise<Board> {
  const { closer, remainingMs, say } = environment;
  const board = await startBoard(environment);
  closer.add('board', () => board.stop(remainingMs()));
  say(`Board: ${board.url}; Ctrl-C stops`);
  return board;
}
