import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Bytes of events that producers on this machine have put aside while their queue was away.
 *
 * @param folders - that of each destination; one that does not exist is empty
 */
export async function spoolBytes(folders: readonly string[]): Promise<number> {
  const sizes = await Promise.all([...new Set(folders)].map(bytesIn));
  return sizes.reduce((total, bytes) => total + bytes, 0);
}

/** Files come and go while they are counted, as producers replay them. */
async function bytesIn(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = entries.filter((entry) => entry.isFile());
  const sizes = await Promise.all(
    files.map(({ parentPath, name }) =>
      stat(join(parentPath, name)).then(
        ({ size }) => size,
        () => 0,
      ),
    ),
  );
  return sizes.reduce((total, bytes) => total + bytes, 0);
}
