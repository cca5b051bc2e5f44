import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { EmbeddedServerError } from '../errors.ts';

/** The process that a pid file names; `undefined` without file or number. */
export function pidIn(file: string): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync(file, 'utf8'), 10);
    return pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/**
 * Whether `pid` runs with `argument` on its command line. A pid file may outlive its process,
 * and the number be another's by now: such a process must not be touched.
 */
export function runsWith(pid: number, argument: string): boolean {
  return ` ${commandLines().get(pid) ?? ''} `.includes(` ${argument} `);
}

/** The processes whose command line, or the title that they gave themselves, begins with `start`. */
export function processesTitled(start: string): number[] {
  return [...commandLines()].filter(([, line]) => line.startsWith(start)).map(([pid]) => pid);
}

/** By pid, with spaces between arguments. */
function commandLines(): Map<number, string> {
  if (process.platform !== 'linux') {
    const lines = execFileSync('ps', ['-A', '-ww', '-o', 'pid=,command='], { encoding: 'utf8' });
    return new Map(
      Array.from(lines.matchAll(/^ *(\d+) (.*)$/gm), ([, pid, line = '']) => [Number(pid), line]),
    );
  }
  // Small images have no `ps`.
  const found = new Map<number, string>();
  for (const pid of readdirSync('/proc').map(Number).filter(Boolean)) {
    try {
      found.set(pid, readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trimEnd());
    } catch {
      // It ended since.
    }
  }
  return found;
}

/**
 * Stops a server whose supervisor was killed.
 *
 * @throws {EmbeddedServerError} when it does not go
 */
export async function stopOrphan(pid: number, signals: NodeJS.Signals[]): Promise<void> {
  for (const signal of [...signals, 'SIGKILL' as const]) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return;
      break;
    }
    for (const deadline = Date.now() + 5000; Date.now() < deadline; await sleep(25)) {
      if (!isAlive(pid)) return;
    }
  }
  throw new EmbeddedServerError(
    `a server of an earlier run (pid ${pid}) does not stop. Stop it by hand.`,
  );
}
