import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { forgetPid, killAtExit } from './pids.ts';

export interface RunOptions {
  /** Added to the tests' environment; undefined removes a variable. */
  env?: Record<string, string | undefined>;
  cwd?: string;
  /** Account and group to run as, which needs root. */
  uid?: number;
  /** Then the process is killed with SIGKILL; default 60,000. */
  timeoutMs?: number;
  /** Written to standard input, which is then closed. */
  input?: string;
}

export interface RunResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** The repository's folder. */
export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** Runs a program to its end, whatever that is. */
export async function run(
  file: string,
  args: string[] = [],
  options: RunOptions = {},
): Promise<RunResult> {
  const child = start(file, args, options);
  const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 60_000);
  child.stdin.end(options.input);
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stdout, stderr });
    });
  });
}

/** Starts a TypeScript file, whose path is relative to the repository, and leaves it running. */
export function spawnTsx(
  file: string,
  args: string[] = [],
  env: Record<string, string | undefined> = {},
): ChildProcessWithoutNullStreams {
  return start(process.execPath, ['--import', 'tsx', file, ...args], { env });
}

/** Starts a program, and leaves it running. */
export function start(
  file: string,
  args: string[],
  { env, cwd = ROOT, uid }: RunOptions,
): ChildProcessWithoutNullStreams {
  const child = spawn(file, args, {
    cwd,
    env: { ...process.env, ...env },
    ...(uid !== undefined && { uid, gid: uid }),
  });
  child.stdin.on('error', () => {}); // the process may end without reading its input
  const { pid } = child;
  if (pid !== undefined) {
    killAtExit(pid);
    child.once('exit', () => forgetPid(pid));
  }
  return child;
}
