import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { ChaosGround } from './ground.ts';
import type { Life } from './notes.ts';
import type { ProducerMessage, ProducerTask } from './producer.ts';

const PRODUCERS = 3;
const WORKERS = 2;
/**
 * Events a second of each producer: this is about faults, not about load. At such rates nearly
 * every event is a job of its own, of which PostgreSQL takes far fewer.
 */
const RATES = { redis: 100, postgres: 15 } as const;
/** What a producer emits in 20 s or more: longer than an outage lasts. A spool has a mebibyte at least. */
const SPOOL_BYTES = { redis: 2 * 1024 * 1024, postgres: 1024 * 1024 } as const;

/** A process that is started again whenever it is killed. */
class Member {
  child: ChildProcess;
  readonly #fork: () => ChildProcess;

  constructor(start: () => ChildProcess) {
    this.#fork = start;
    this.child = start();
  }

  start(): void {
    this.child = this.#fork();
  }

  async kill(): Promise<void> {
    if (this.child.exitCode !== null) return; // which the end of the run tells
    this.child.kill('SIGKILL');
    await once(this.child, 'exit');
  }
}

/** The producers and workers of a run. */
export class Crew {
  readonly producers: Member[];
  readonly workers: Member[];
  readonly #ground: ChaosGround;
  readonly #env: NodeJS.ProcessEnv;
  #refused = 0;
  /** What became of processes that ended of their own accord. */
  readonly crashes: string[] = [];
  /** Events that producers could not deliver in the end. */
  #left = 0;

  constructor(ground: ChaosGround) {
    this.#ground = ground;
    this.#env = {
      ...process.env,
      DATABASE_URL: ground.databaseUrl,
      REDIS_URL: '',
      ANNALS_LOG_LEVEL: 'warn',
      ANNALS_LOG_FORMAT: 'json',
      ANNALS_SPOOL_DIR: join(ground.folder, 'spool'),
      ANNALS_SPOOL_MAX_BYTES: String(SPOOL_BYTES[ground.queue.kind]),
      ANNALS_BUFFER_MAX_BYTES: String(1024 * 1024),
      // The jobs of a dead worker are found soon, so that many kills fit in a run.
      ANNALS_JOB_LOCK_MS: '5000',
      ANNALS_PACK_MAX_WAIT_MS: '50',
    };
    this.producers = Array.from({ length: PRODUCERS }, (_, producer) => {
      let life = 0;
      return new Member(() => this.#startProducer({ producer, life: life++ }));
    });
    this.workers = Array.from(
      { length: WORKERS },
      (_, n) => new Member(() => this.#start(`worker-${n}`, 'worker.ts', ground.queue)),
    );
    process.prependOnceListener('exit', () => this.kill()); // before their folder is removed
  }

  /** Emits that full spools refused so far. */
  get refused(): number {
    return this.#refused;
  }

  /** Has the producers deliver all that they hold; resolves to the events that they could not. */
  async finishProducers(): Promise<number> {
    await Promise.all(
      this.producers.map(async (member) => {
        member.child.send('finish', () => {}); // one that is gone has said why
        if (member.child.exitCode === null) await once(member.child, 'exit');
      }),
    );
    return this.#left;
  }

  async finishWorkers(): Promise<void> {
    await Promise.all(
      this.workers.map(async ({ child }) => {
        child.send('finish', () => {});
        if (child.exitCode === null) await once(child, 'exit');
      }),
    );
  }

  /** Attempts that failed, as the workers' logs say. */
  burnedAttempts(): number {
    return readdirSync(this.#ground.folder)
      .filter((file) => file.startsWith('worker-'))
      .flatMap((file) => readFileSync(join(this.#ground.folder, file), 'utf8').split('\n'))
      .filter((line) => /"attempt":\d/.test(line)).length;
  }

  kill(): void {
    for (const { child } of [...this.producers, ...this.workers]) child.kill('SIGKILL');
  }

  #startProducer(life: Life): ChildProcess {
    const { queue, folder } = this.#ground;
    const task: ProducerTask = { ...life, queue, folder, rate: RATES[queue.kind] };
    const child = this.#start(`producer-${life.producer}`, 'producer.ts', task);
    let refused = 0;
    child.on('message', (message: ProducerMessage) => {
      this.#refused += message.refused - refused;
      refused = message.refused;
      this.#left += message.left ?? 0;
    });
    return child;
  }

  #start(name: string, file: string, task: unknown): ChildProcess {
    const log = openSync(join(this.#ground.folder, `${name}.log`), 'a');
    const child = fork(fileURLToPath(new URL(file, import.meta.url)), [JSON.stringify(task)], {
      env: this.#env,
      stdio: ['ignore', log, log, 'ipc'],
      execArgv: ['--import', 'tsx'],
    });
    closeSync(log);
    child.once('exit', (code) => {
      if (code === null || code === 0) return; // killed, or told to finish
      const end = readFileSync(join(this.#ground.folder, `${name}.log`), 'utf8').slice(-3000);
      this.crashes.push(`${name} ended by itself with ${code}:\n${end}`);
    });
    return child;
  }
}
