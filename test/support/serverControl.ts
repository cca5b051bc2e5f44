import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

import type { ServerProcess } from '../../src/embedded/process.ts';

/** A server to be killed, paused and restarted at will. */
export interface TestServer {
  readonly url: string;
  readonly port: number;
  /** Of the server that runs now; another one after a restart. */
  readonly pid: number;
  /** Sends the signal (default SIGKILL) and resolves when the server is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Freezes the server and its children: connections stay open and nothing answers. */
  pause(): void;
  resume(): void;
  /** Stops the server if it runs, and starts it on the same port and data. */
  restart(): Promise<void>;
  /** Stops the server and removes its data. */
  stop(): Promise<void>;
}

export interface ServerControl {
  port: number;
  url: string;
  start(): Promise<ServerProcess>;
  /** Ends it well, as its owner would. */
  stop(server: ServerProcess): Promise<void>;
  /** Removes its data. */
  remove(): void;
  /** Told of each process that is started, so that nothing outlives the run. */
  onStart?: (server: ServerProcess) => void;
}

/** Starts a server that can be killed, frozen and restarted. */
export async function controlServer(control: ServerControl): Promise<TestServer> {
  const start = async () => {
    const server = await control.start();
    control.onStart?.(server);
    return server;
  };
  let server = await start();
  const toAll = (signal: NodeJS.Signals) => {
    signalIfAlive(server.pid, signal); // before one looks for its children: it makes others else
    for (const pid of childrenOf(server.pid)) signalIfAlive(pid, signal);
  };
  const kill = async (signal: NodeJS.Signals = 'SIGKILL') => {
    const children = childrenOf(server.pid);
    signalIfAlive(server.pid, signal);
    await server.exited;
    // PostgreSQL's children notice the death of their parent and go; a restart must wait for them.
    while (children.some((pid) => signalIfAlive(pid, 0))) await sleep(10);
  };
  return {
    url: control.url,
    port: control.port,
    get pid() {
      return server.pid;
    },
    kill,
    pause: () => toAll('SIGSTOP'),
    resume: () => toAll('SIGCONT'),
    restart: async () => {
      toAll('SIGCONT');
      await control.stop(server);
      server = await start();
    },
    stop: async () => {
      toAll('SIGCONT');
      await control.stop(server);
      control.remove();
    },
  };
}

function childrenOf(parent: number): number[] {
  return execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter(([, ppid]) => ppid === parent)
    .map(([pid]) => pid as number);
}

/** Whether the process was there to get it. */
function signalIfAlive(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}
