import { fork } from 'node:child_process';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { Claim } from './ledger.ts';

/** What a runtime process says while it runs, and at its end. */
export interface RuntimeMessage {
  emitted: number;
  /** When the first was emitted, in milliseconds since 1970; 0 before that. */
  emittedFrom: number;
  /** Taken by the queue. */
  delivered: number;
  claim?: Claim;
}

/** What a worker process says: figures since its start. The first one says that it is ready. */
export interface WorkerMessage {
  committed: number;
  duplicates: number;
  /** Times that an event was found to wait for its parent. */
  waiting: number;
  /** When the last of them was committed, in milliseconds since 1970; 0 before the first. */
  committedAt: number;
}

/** Resolves when the process that started this one, if it is still there, has the message. */
export function tellParent(message: RuntimeMessage | WorkerMessage): Promise<void> {
  return new Promise((resolve) => {
    if (process.connected) process.send?.(message, () => resolve());
    else resolve();
  });
}

/**
 * Leaves the signals of a terminal, which reach the whole group of processes, to the process that
 * started this one, and ends with it whatever happens to it.
 *
 * @param onFinish - what to do when that process says that it is time to finish
 */
export function belongToParent(onFinish: () => unknown = () => {}): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  process.once('disconnect', () => process.exit(1));
  process.once('message', onFinish);
}

export interface Child<M> {
  /** The latest message. */
  readonly latest: M | undefined;
  /** Resolves with the first message; rejects when the process ends without one. */
  readonly started: Promise<void>;
  /** Resolves when the process ends with 0; rejects otherwise. */
  readonly ended: Promise<void>;
  /** Tells the process that it is time to finish. */
  finish(): void;
}

/**
 * Starts a program of this folder as a process of its own, which is killed when `signal` aborts.
 *
 * @param name - for people
 */
export function startChild<M>(
  program: 'runtime' | 'worker',
  name: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  signal: AbortSignal,
): Child<M> {
  // As TypeScript from a checkout, as JavaScript from the package.
  const file = new URL(`./${program}${extname(fileURLToPath(import.meta.url))}`, import.meta.url);
  const child = fork(file, args, {
    env,
    signal,
    killSignal: 'SIGKILL', // what it holds is to be thrown away
    serialization: 'advanced', // claims hold maps
  });
  let latest: M | undefined;
  const ended = new Promise<void>((resolve, reject) => {
    child.on('error', (error) => {
      if (child.pid === undefined) reject(error); // else it says that `signal` aborted: 'exit' follows
    });
    child.once('exit', (code, killedBy) => {
      if (code === 0) resolve();
      else reject(new Error(`${name} ended with ${killedBy ?? `code ${code}`}`));
    });
  });
  const started = new Promise<void>((resolve, reject) => {
    child.on('message', (message) => {
      latest = message as M;
      resolve();
    });
    ended.then(() => reject(new Error(`${name} ended before it began`)), reject);
  });
  // Whoever does not wait for one of them learns from the other.
  for (const outcome of [started, ended]) outcome.catch(() => {});
  return {
    get latest() {
      return latest;
    },
    started,
    ended,
    finish: () => {
      if (child.connected) child.send('finish', () => {}); // `ended` tells what went wrong
    },
  };
}
