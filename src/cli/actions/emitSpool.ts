import { existsSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { SpoolError, UsageError } from '../../errors.ts';
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
    /** Why what is left cannot be sent: the spool as a whole, or files of it by their paths. */
    let fault: SpoolError | undefined;
    const unreadable = new Map<string, SpoolError>();
    const producer = createProducer({
      config,
      queue,
      spoolFolder: folder,
      onCorrupt: (spoolFile, places) =>
        log.error({ file: spoolFile, places }, 'events in the spool are damaged and lost'),
      onError: (error) => {
        if (!(error instanceof SpoolError)) log.warn({ reason: reasonOf(error) }, 'trying again');
        else if (error.file === undefined) fault = error;
        else unreadable.set(error.file, error);
      },
    });
    closer.add('producer', () => producer.close({ deadlineMs: remainingMs() }));
    const isLeft = async () => {
      const stuckBytes = [...unreadable.keys()].reduce((sum, one) => sum + sizeOf(one), 0);
      // Beyond this it adopts no more, whatever else there is.
      const canAdopt = stuckBytes < config.ANNALS_SPOOL_MAX_BYTES;
      return producer.stats().spooledBytes > stuckBytes || (canAdopt && (await leftIn(folder)) > 0);
    };
    while (!stopping.aborted && !fault && (await isLeft())) {
      await sleep(LOOK_MS, undefined, { signal: stopping }).catch(() => {});
    }
    await producer.close({ deadlineMs: remainingMs() });
    const { adopted, corrupt } = producer.stats();
    const summary = { sent: adopted, damaged: corrupt, bytesLeft: producer.stats().spooledBytes };
    result(summary, table(Object.keys(summary), [Object.values(summary)]));
    stopping.throwIfAborted();
    if (fault) throw fault;
    const stuck = [...unreadable.keys()].filter((one) => existsSync(one));
    if (stuck.length > 0) throw notRead(stuck, unreadable.get(stuck[0] as string)?.cause);
    return summary.bytesLeft === 0 && corrupt === 0 ? 0 : 1;
  });
}

const sizeOf = (path: string) => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

function notRead(files: readonly string[], cause: unknown): SpoolError {
  return new SpoolError(
    `of the spool these files cannot be read (${(cause as Error).message}), and are left: ${files.join(', ')}. Run this again as a user who may read them, or see to the disk.`,
    { cause },
  );
}
