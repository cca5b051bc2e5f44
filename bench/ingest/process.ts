import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import type { ChildMessage, ChildTask, Order, Usage } from './child.ts';

/** A contestant's process, as the bench sees it. */
export class Child {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<never>;
  #onCommitted: (events: number, at: number) => void = () => {};
  #isOver = false;

  constructor(name: string, task: ChildTask) {
    this.name = name;
    this.#child = fork(
      fileURLToPath(new URL('child.ts', import.meta.url)),
      [JSON.stringify(task)],
      {
        env: childEnvironment(),
        execArgv: ['--import', 'tsx'],
      },
    );
    this.#ended = new Promise((_, reject) => {
      this.#child.once('error', reject);
      this.#child.once('exit', (code, signal) =>
        reject(new Error(`the ${name} process ended with ${signal ?? `code ${code}`}`)),
      );
    });
    this.#ended.catch(() => {}); // told by whoever waits
    this.#child.on('message', (message) => {
      const { type, ...rest } = message as ChildMessage;
      if (type !== 'committed') return;
      const { events, at } = rest as { events: number; at: number };
      this.#onCommitted(events, at);
    });
  }

  onCommitted(listener: (events: number, at: number) => void): void {
    this.#onCommitted = listener;
  }

  order(order: Order): void {
    this.#child.send(order, () => {}); // who waits for its answer learns that it is gone
  }

  /** Rejects when the process ends first. */
  next<T extends ChildMessage['type']>(type: T): Promise<Extract<ChildMessage, { type: T }>> {
    const told = new Promise<Extract<ChildMessage, { type: T }>>((resolve) => {
      const listen = (message: unknown) => {
        if ((message as ChildMessage).type !== type) return;
        this.#child.off('message', listen);
        resolve(message as Extract<ChildMessage, { type: T }>);
      };
      this.#child.on('message', listen);
    });
    return Promise.race([told, this.#ended]);
  }

  /** Rejects when the process ends; never resolves. */
  get ended(): Promise<never> {
    return this.#ended;
  }

  /** Has it close what it holds, and tells what it took since the clock started. */
  async stop(): Promise<Usage> {
    const usage = this.next('usage');
    this.order('stop');
    const { usage: used } = await usage;
    this.#isOver = true;
    return used;
  }

  /** Resolves when the process has ended with 0. */
  async exited(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      await new Promise((resolve) => this.#child.once('exit', resolve));
    }
    if (this.#child.exitCode !== 0) await this.#ended;
  }

  kill(): void {
    if (!this.#isOver) this.#child.kill('SIGKILL');
  }
}

/** Nothing of the caller's settings: every contestant is as it comes. */
function childEnvironment(): NodeJS.ProcessEnv {
  const settings = /^(ANNALS_|DATABASE_URL$|REDIS_URL$|PG[A-Z]+$|OTEL_|NODE_OPTIONS$)/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !settings.test(name)));
}
