import { inEnvironment } from '../environment.ts';
import { ensureSchema } from '../schema.ts';
import { openBoard } from './board.ts';
import { startWork } from './worker.ts';

export async function start(options: { json?: boolean }): Promise<void> {
  await inEnvironment({ ...options, needs: 'all', waits: true }, async (environment) => {
    await ensureSchema(environment);
    // The board is there first and closes last: it shows the workers come and go.
    await openBoard(environment);
    const finish = await startWork(environment);
    return finish();
  });
}
