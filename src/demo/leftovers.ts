import { readdirSync, realpathSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { isAlive } from '../embedded/orphan.ts';
import { connectToSupervisor, socketFolder } from '../embedded/socket.ts';

/** The folder of a demo tells which process it is of. */
export const folderPrefix = (pid: number) => join(tmpdir(), `annals-demo-${pid}_`);
const FOLDER = /^annals-demo-(\d+)_/;

/** Milliseconds in which a demo has its servers up, by which it is known to be at work. */
const STARTING_MS = 60_000;

/**
 * Removes the folders of demos that were killed before they could. A demo is at work while its
 * process lives, while its servers run (whose supervisor answers), and for a minute in any case:
 * it may be starting in another container, where its process has a number that means nothing here.
 */
export async function removeLeftovers(): Promise<void> {
  for (const name of readdirSync(tmpdir())) {
    const pid = Number(FOLDER.exec(name)?.[1]);
    if (!pid || isAlive(pid)) continue;
    try {
      const folder = realpathSync(join(tmpdir(), name));
      const { uid, mtimeMs } = statSync(folder);
      if (uid !== process.getuid?.() || Date.now() - mtimeMs < STARTING_MS) continue;
      const sockets = socketFolder(folder);
      const supervisor = await connectToSupervisor(sockets);
      supervisor?.destroy();
      if (supervisor) continue;
      for (const path of [sockets, folder]) rmSync(path, { recursive: true, force: true });
    } catch {
      // Somebody else's, or removed by another demo just now.
    }
  }
}
