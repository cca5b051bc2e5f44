import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import { EmbeddedServerError } from '../errors.ts';
import type { Command } from './account.ts';

/** A server program that this process started and owns. */
export interface ServerProcess {
  readonly name: string;
  readonly pid: number;
  readonly logFile: string;
  /** Resolves, and never rejects, once the process is gone. */
  readonly exited: Promise<void>;
  isRunning(): boolean;
  /**
   * Asks with each signal in turn until the process is gone, giving each `patienceMs`
   * (default 10,000); the last resort is SIGKILL.
   */
  stop(signals: NodeJS.Signals[], patienceMs?: number): Promise<void>;
  /** Lets this process end while the server runs on. */
  detach(): void;
}

/** Bytes; the most that glibc takes on 64 bits (`DEFAULT_MMAP_THRESHOLD_MAX`, mallopt(3)). */
const KEPT_MEMORY = 32 * 1024 * 1024;

/**
 * No more than a server needs: it may run as another user, who must not read the secrets of our
 * environment in its own.
 *
 * A statement of PostgreSQL that takes a few megabytes gives them back when it ends, and the next
 * one has each page touched anew. Told so, glibc keeps `KEPT_MEMORY` at the end of each process's
 * heap. Other C libraries and the allocator of Redis don't read this. What it saves:
 * docs/performance.md.
 */
export const SERVER_ENV: NodeJS.ProcessEnv = {
  PATH: process.env['PATH'],
  LD_LIBRARY_PATH: process.env['LD_LIBRARY_PATH'],
  LC_ALL: 'C',
  TZ: 'UTC',
  MALLOC_TRIM_THRESHOLD_: `${KEPT_MEMORY}`,
  MALLOC_MMAP_THRESHOLD_: `${KEPT_MEMORY}`,
};

/** Starts `command` with its output appended to `logFile`. */
export async function launch(
  name: string,
  command: Command,
  logFile: string,
): Promise<ServerProcess> {
  const log = openSync(logFile, 'a', 0o600);
  let child: ChildProcess;
  try {
    if (command.note) writeSync(log, `${name} ${command.note}\n`);
    child = spawn(command.file, command.args, {
      ...command.credentials,
      // A server must not hold a folder of the caller, nor need the right to enter it.
      cwd: '/',
      // Out of the terminal's process group: Ctrl-C stops the servers' owner, who stops them in order.
      detached: true,
      stdio: ['ignore', log, log],
      env: SERVER_ENV,
    });
  } finally {
    closeSync(log);
  }
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (cause) => {
      reject(new EmbeddedServerError(`${name} could not be started: ${cause.message}`, { cause }));
    });
  });
  const isRunning = () => child.exitCode === null && child.signalCode === null;
  return {
    name,
    pid: child.pid as number,
    logFile,
    exited,
    isRunning,
    stop: async (signals, patienceMs = 10_000) => {
      for (const signal of [...signals, 'SIGKILL' as const]) {
        if (!isRunning()) return;
        child.kill(signal);
        await settledWithin(exited, patienceMs);
      }
    },
    detach: () => child.unref(),
  };
}

/** A server that does not answer within this is given up, unless it says that it is busy. */
const START_TIMEOUT_MS = 25_000;

/** Recovery of a large write-ahead log, or reading a large append-only file. */
const BUSY_TIMEOUT_MS = 600_000;

/**
 * Calls `probe` until it stops throwing.
 *
 * @param isBusy - whether the probe's error is the server's word that it works on its data
 * @param onBusy - called at most every 5 seconds while it does
 * @throws {EmbeddedServerError} when the server exits first or the time is up, quoting its log
 */
export async function waitUntilReady(
  server: ServerProcess,
  probe: () => Promise<unknown>,
  isBusy: (error: unknown) => boolean,
  onBusy: () => void = () => {},
): Promise<void> {
  const begun = Date.now();
  let toldAt = 0;
  for (;;) {
    try {
      await probe();
      return;
    } catch (cause) {
      const busy = isBusy(cause);
      const waited = Date.now() - begun;
      if (busy && waited > toldAt + 5000) {
        toldAt = waited;
        onBusy();
      }
      const limit = busy ? BUSY_TIMEOUT_MS : START_TIMEOUT_MS;
      if (!server.isRunning() || waited > limit) {
        const why = server.isRunning()
          ? `did not answer within ${limit / 1000} s`
          : 'stopped while starting';
        throw new EmbeddedServerError(`${server.name} ${why}.${quoteLog(server.logFile)}`, {
          cause,
        });
      }
    }
    await sleep(25);
  }
}

/** Whether `promise` settles within `ms`. */
export async function settledWithin(promise: Promise<unknown>, ms: number): Promise<boolean> {
  const timer = new AbortController();
  try {
    return await Promise.race([
      promise.then(() => true),
      sleep(ms, false, { signal: timer.signal, ref: true }),
    ]);
  } finally {
    timer.abort();
  }
}

/** A TCP port of 127.0.0.1 that is free now; `preferred` if it is. */
export async function freePort(preferred = 0): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (error) => (preferred ? resolve(freePort()) : reject(error)));
    server.listen(preferred, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** The end of a log for an error message; empty when there is none. */
export function quoteLog(file: string, lines = 8): string {
  let text: string;
  try {
    text = readFileSync(file, 'utf8').trimEnd();
  } catch {
    return '';
  }
  const tail = text.split('\n').slice(-lines);
  return text === '' ? '' : ` The end of ${file}:\n  ${tail.join('\n  ')}`;
}
