import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

import type { Config } from '../../config.ts';
import type { QueueLocation } from '../../queues/backend.ts';
import { configuredSpoolFolder, spoolFolder } from './destination.ts';
import { DESTINATION, leftIn } from './folder.ts';

/** Events that no producer to the queues of now looks for. */
export interface Stray {
  folder: string;
  /** Where the queues were, without credentials. */
  destination: string;
  bytes: number;
}

/**
 * What dead producers to other queues left in ANNALS_SPOOL_DIR: an address that has changed leaves
 * it stranded. Folders that are not ours to read are passed over.
 */
export async function straySpools(config: Config, queue: QueueLocation): Promise<Stray[]> {
  const ours = new Set([configuredSpoolFolder(config), spoolFolder(config, queue)]);
  const strays: Stray[] = [];
  for (const folder of foldersIn(resolve(config.ANNALS_SPOOL_DIR))) {
    if (ours.has(folder)) continue;
    const bytes = await leftIn(folder).catch(() => 0);
    if (bytes > 0) strays.push({ folder, destination: destinationIn(folder), bytes });
  }
  return strays;
}

function foldersIn(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => join(path, name));
  } catch {
    return []; // none yet, or the check of the folder itself tells
  }
}

function destinationIn(folder: string): string {
  try {
    return readFileSync(join(folder, DESTINATION), 'utf8').trim() || 'unknown queues';
  } catch {
    return 'unknown queues'; // an earlier version made it
  }
}
