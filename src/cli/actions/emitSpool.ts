import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { UsageError } from '../../errors.ts';
import { reasonOf } from '../../outage.ts';
import { createProducer } from '../../producers/producer.ts';
import { leftIn } from '../../producers/spool/folder.ts';
import type { EmitOptions } from '../emit.ts';
import { inEnvironment } from '../environment.ts';
import { table } from '../table.ts';

const LOOK_MS = 100;

/**
 * Sends what dead producers left in a folder of the spool to the queues of now, as any producer
 * with that folder does: it adopts their segments, and removes them when the queues have them.
 */
export async function emitSpool(
  path: string,
  file: string | undefined,
  options: EmitOptions,
): Promise<void> {
  if (file !== undefined) throw new UsageError('--spool: takes no file of events besides');
  const folder = resolve(path);
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UsageError(
      `--spool: ${folder} is not a folder; "annals doctor" names those that are`,
    );
  }
  await inEnvironment({ ...options, needs: 'queue' }, async (environment) => {
    const { closer, config, log, queue, remainingMs, result, stopping } = environment;
    const producer = createProducer({
      config,
      queue,
      spoolFolder: folder,
      onCorrupt: (spoolFile, places) =>
        log.error({ file: spoolFile, places }, 'events in the spool are damaged and lost'),
      onError: (error) => log.warn({ reason: reasonOf(error) }, 'trying again'),
    });
    closer.add('producer', () => producer.close({ deadlineMs: remainingMs() }));
    const isLeft = async () => (await leftIn(folder)) > 0 || producer.stats().spooledBytes > 0;
    while (!stopping.aborted && (await isLeft())) {
      await sleep(LOOK_MS, undefined, { signal: stopping }).catch(() => {});
    }
    await producer.close({ deadlineMs: remainingMs() });
    const { adopted, corrupt } = producer.stats();
    const summary = { sent: adopted, damaged: corrupt, bytesLeft: producer.stats().spooledBytes };
    result(summary, table(Object.keys(summary), [Object.values(summary)]));
    stopping.throwIfAborted();
    return summary.bytesLeft === 0 && corrupt === 0 ? 0 : 1;
  });
}
