import { inEnvironment } from '../environment.ts';
import { openBoard } from './board.ts';
import { prepareWork, startWork } from './worker.ts';

export async function start(options: { json?: boolean }): Promise<void> {
  await inEnvironment({ ...options, needs: 'all', waits: true }, async (environment) => {
    await prepareWork(environment);
    // The board is there first and closes last: it shows the workers come and go.
    await openBoard(environment);
    const finish = await startWork(environment);
    return finish();
  });
}
