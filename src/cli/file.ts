import { open } from 'node:fs/promises';
import type { Readable } from 'node:stream';

import { UsageError } from '../errors.ts';

/** @throws {UsageError} when it cannot be opened, or is a folder */
export async function openFile(path: string): Promise<Readable> {
  try {
    const handle = await open(path);
    const stats = await handle.stat();
    if (!stats.isDirectory()) return handle.createReadStream();
    await handle.close();
  } catch (error) {
    throw new UsageError(`${path}: ${(error as Error).message}`, { cause: error });
  }
  throw new UsageError(`${path} is a folder; give a file`);
}
