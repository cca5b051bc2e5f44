import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { inject } from 'vitest';

declare module 'vitest' {
  interface ProvidedContext {
    /** Names a file for each process that a test started. */
    pidFolder: string;
  }
}

/** Has the run's end kill the process, should the test that started it not have done so. */
export function killAtExit(pid: number, folder: string = inject('pidFolder')): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, String(pid)), '');
}

/** A process that is gone must be forgotten, since another may get its number. */
export function forgetPid(pid: number): void {
  rmSync(join(inject('pidFolder'), String(pid)), { force: true });
}

/** Kills what is left. */
export function killLeftOvers(folder: string): void {
  mkdirSync(folder, { recursive: true });
  for (const pid of readdirSync(folder)) {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // gone already, as it should be
    }
  }
}
