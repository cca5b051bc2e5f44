import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import { extname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { EmbeddedServerError } from '../errors.ts';
import { quoteLog } from './process.ts';
import {
  type Granted,
  type Line,
  onEachLine,
  type Order,
  type SupervisorOptions,
} from './protocol.ts';
import { connectToSupervisor, socketFolder } from './socket.ts';

/** The right to use the embedded servers; they run as long as anybody holds one. */
export interface Lease extends Granted {
  /** Resolves when the lease ends without `close()`: its supervisor died or gave up. */
  readonly lost: Promise<void>;
  /** Gives the lease back; the servers stop some time after the last one. */
  close(): Promise<void>;
}

export interface LeaseRequest extends Order {
  /** The folder of the servers' data and logs; made if it is not there. */
  dataDir: string;
  /** Milliseconds from the end of the last lease to the stop; the first to come decides. Default 2,000. */
  graceMs?: number;
  /** Milliseconds without any news until it is given up. Default 30,000. */
  timeoutMs?: number;
  /** Told what takes long. */
  log?: (line: string) => void;
}

/**
 * Takes a lease of the servers in `dataDir`, and starts a supervisor where there is none. The
 * lease does not keep the process alive, and ends with it.
 *
 * @throws {EmbeddedServerError} when the servers cannot be started, within `timeoutMs`
 */
export async function takeLease(request: LeaseRequest): Promise<Lease> {
  if (process.platform === 'win32') {
    throw new EmbeddedServerError(
      'The embedded servers need Linux or macOS (or WSL). Set DATABASE_URL and REDIS_URL.',
    );
  }
  const { timeoutMs = 30_000 } = request;
  const supervisor = prepareSupervisor(request);
  let deadline = Date.now() + timeoutMs;
  const onNews = (news: string) => {
    deadline = Date.now() + timeoutMs;
    request.log?.(news);
  };

  while (Date.now() < deadline) {
    const socket = await connectToSupervisor(supervisor.socketFolder);
    const granted = socket && (await ask(socket, request, onNews, () => deadline));
    if (granted) return asLease(socket, granted);
    // There is none, or it was about to stop when it took our connection.
    supervisor.start();
    await sleep(25);
    supervisor.check();
  }
  throw new EmbeddedServerError(
    `The embedded servers did not start within ${timeoutMs / 1000} s.${quoteLog(supervisor.logFile)}`,
  );
}

/** Hands over the order and waits for the outcome; `undefined` when the connection ends first. */
async function ask(
  socket: Socket,
  { postgres, redis }: Order,
  onNews: (news: string) => void,
  deadline: () => number,
): Promise<Granted | undefined> {
  return new Promise((resolve, reject) => {
    const finish = (outcome: () => void) => {
      clearInterval(timer);
      outcome();
    };
    const fail = (message: string) =>
      finish(() => {
        socket.destroy();
        reject(new EmbeddedServerError(message));
      });
    const timer = setInterval(() => {
      if (Date.now() > deadline())
        fail(
          'The supervisor of the embedded servers does not answer; its log is supervisor.log in ANNALS_DATA_DIR.',
        );
    }, 100);
    onEachLine<Line>(socket, (line) => {
      if ('news' in line) onNews(line.news);
      else if ('error' in line) fail(line.error);
      else finish(() => resolve(line.granted));
    });
    socket.on('error', () => {}); // 'close' follows
    socket.once('close', () => finish(() => resolve(undefined)));
    socket.write(`${JSON.stringify({ postgres, redis } satisfies Order)}\n`);
  });
}

function asLease(socket: Socket, granted: Granted): Lease {
  let closing = false;
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  socket.unref();
  return {
    ...granted,
    lost: closed.then(() => (closing ? new Promise<void>(() => {}) : undefined)),
    close: () => {
      closing = true;
      socket.destroy();
      return closed;
    },
  };
}

/** Sees to it that the data folder is usable before a process is started that could only say so in a log there. */
function prepareSupervisor({ dataDir, graceMs = 2000 }: LeaseRequest) {
  let folder: string;
  let logFile: string;
  try {
    // Root's servers run as another user, who must pass through; what lies within is closed itself.
    mkdirSync(dataDir, { recursive: true, mode: process.getuid?.() === 0 ? 0o711 : 0o700 });
    folder = realpathSync(dataDir);
    logFile = join(folder, 'supervisor.log');
    closeSync(openSync(logFile, 'a', 0o600));
  } catch (cause) {
    throw new EmbeddedServerError(
      `The embedded servers cannot keep data in ${dataDir}: ${(cause as Error).message}. ` +
        'Set ANNALS_DATA_DIR to a folder that this user may write, or set DATABASE_URL and REDIS_URL.',
      { cause },
    );
  }

  let running = false;
  let failed: string | undefined;
  return {
    logFile,
    socketFolder: socketFolder(folder),
    start: () => {
      if (running) return;
      running = true;
      const log = openSync(logFile, 'a');
      const child = spawn(process.execPath, supervisorArgs({ dataDir: folder, graceMs }), {
        cwd: '/',
        detached: true, // in a session of its own, which a closing terminal does not end
        stdio: ['ignore', log, log],
        env: { ...process.env, NODE_OPTIONS: undefined }, // a debugger's port, say, is not for it
      });
      closeSync(log);
      child.unref();
      child.once('error', (error) => (failed = error.message));
      child.once('exit', (code) => {
        running = false; // with 0 when another supervisor was faster
        if (code !== 0) failed = `it ended with ${code}`;
      });
    },
    /** @throws {EmbeddedServerError} when the one that was started failed */
    check: () => {
      if (failed)
        throw new EmbeddedServerError(
          `The supervisor of the embedded servers could not start: ${failed}.${quoteLog(logFile)}`,
        );
    },
  };
}

/** This code runs as TypeScript from a checkout and as JavaScript from the package. */
function supervisorArgs(options: SupervisorOptions): string[] {
  const extension = extname(fileURLToPath(import.meta.url));
  const loader =
    extension === '.ts'
      ? ['--import', pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href]
      : [];
  const program = fileURLToPath(new URL(`./supervisor${extension}`, import.meta.url));
  return [...loader, program, JSON.stringify(options)];
}
