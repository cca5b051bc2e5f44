import { rmSync } from 'node:fs';

/** Times that a folder is tried again into which a process that is just ending still writes. */
const TRIES = 100;

const PAUSE_MS = 50;

/** Removes a folder, if it is there, with all that is in it. */
export function removeFolder(path: string): void {
  for (let tried = 1; ; tried++) {
    try {
      rmSync(path, { recursive: true, force: true });
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOTEMPTY' || tried === TRIES) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);
    }
  }
}
