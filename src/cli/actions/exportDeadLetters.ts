import { open, type FileHandle } from 'node:fs/promises';

import { toLines } from '../../deadLetters/export.ts';
import { UnavailableError, UsageError } from '../../errors.ts';
import { openEventQueues } from '../../queues/eventQueues.ts';
import { createCounter } from '../counter.ts';
import type { DeadLetterOptions } from '../deadLetters.ts';
import { inEnvironment } from '../environment.ts';
import { parseFilter } from '../filter.ts';
import { amount, lettersIn, write } from '../letters.ts';

export interface ExportOptions extends DeadLetterOptions {
  output?: string;
}

export async function exportDeadLetters(options: ExportOptions): Promise<void> {
  const read = parseFilter(options, 0);
  const { output } = options;
  const file = output === undefined ? undefined : await create(output);
  // Standard output is for the events, or for the outcome as JSON.
  const json = options.json === true || !file;
  await inEnvironment({ json, needs: 'queue' }, async (environment) => {
    const { closer, queue, result, say } = environment;
    if (file) closer.add('file', () => file.close());
    const queues = await openEventQueues(queue, closer);
    const counter = createCounter('dead letters exported');
    const done = { exported: 0, events: 0 };
    for await (const letter of lettersIn(environment, queues, read)) {
      await append(file, toLines(letter));
      done.exported++;
      done.events += letter.events.length;
      counter.add(1);
    }
    counter.end();
    await file?.sync(); // whoever discards the dead letters next has no other copy
    const summary = `Exported ${amount(done.exported, done.events)}; the dead letters are still there.`;
    if (file) result(done, summary);
    else say(options.json ? JSON.stringify(done) : summary);
    return 0;
  });
}

async function append(file: FileHandle | undefined, lines: string): Promise<void> {
  if (file) await file.appendFile(lines);
  else if (!(await write(lines))) {
    throw new UnavailableError('standard output was closed before all was exported');
  }
}

/** @throws {UsageError} when it cannot be made, or is there already */
async function create(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'wx', 0o600);
  } catch (error) {
    throw new UsageError(`--output: ${(error as Error).message}; takes a new file`, {
      cause: error,
    });
  }
}
