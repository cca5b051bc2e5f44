import { InterruptedError } from '../../errors.ts';
import { inEnvironment } from '../environment.ts';
import { openBoard } from './board.ts';
import { prepareWork, startWork } from './worker.ts';

export async function start(options: { json?: boolean }): Promise<void> {
  await inEnvironment({ ...options, needs: 'none' }, async (environment) => {
    // The board is there first and closes last: it shows servers and workers come and go.
    await openBoard(environment);
    await environment.untilServersAnswer();
    const { stopping } = environment;
    if (stopping.aborted) return stopping.reason instanceof InterruptedError ? 0 : 1;
    await prepareWork(environment);
    const finish = await startWork(environment);
    return finish();
  });
}
