import { once } from 'node:events';

import { startBoard } from '../../board/board.ts';
import { InterruptedError } from '../../errors.ts';
import { inEnvironment, type Environment } from '../environment.ts';
import { ensureSchema } from '../schema.ts';

export async function showBoard(): Promise<void> {
  await inEnvironment({ needs: 'all', waits: true }, async (environment) => {
    const { config, stopping } = environment;
    // A database of its owner's is shown as it is: /readyz says what is pending.
    if (config.DATABASE_URL === undefined) await ensureSchema(environment);
    await openBoard(environment);
    if (!stopping.aborted) await once(stopping, 'abort');
    return stopping.reason instanceof InterruptedError ? 0 : 1;
  });
}

/** Starts the board and says where it is. */
export async function openBoard(environment: Environment): Promise<void> {
  const { closer, remainingMs, say } = environment;
  const board = await startBoard(environment);
  closer.add('board', () => board.stop(remainingMs()));
  say(`Board: ${board.url}; Ctrl-C stops`);
}
