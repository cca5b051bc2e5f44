import { readFile } from 'node:fs/promises';

import { spoolFiles } from '../producers/spool/folder.ts';
import { readRecords } from '../producers/spool/record.ts';
import type { Accounts } from './accounts.ts';

/** Counts the events in the spool folders of this machine, one file of a few megabytes at a time. */
export async function countSpooled(roots: Iterable<string>, accounts: Accounts): Promise<void> {
  for (const root of roots) {
    for (const { path, producerId } of spoolFiles(root)) {
      let file: Buffer;
      try {
        file = await readFile(path);
      } catch (error) {
        // The queue has its events by now, or another producer has taken the folder over.
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
        throw error;
      }
      for (const { kind, accepted, dropped } of readRecords(file).records) {
        accounts.told(kind, { id: producerId, accepted, dropped });
        accounts.add('spooled', kind, producerId, 1);
      }
    }
  }
}
