import type { Logger } from './logger.ts';

/** Milliseconds without a fault after which a server that answered is taken to be back. */
const SETTLE_MS = 500;

/**
 * Says once that a server is away and once that it is back, however often clients report either.
 */
export class OutageLog {
  readonly #log: Logger;
  readonly #what: string;
  #since: number | undefined;
  #settling: NodeJS.Timeout | undefined;

  /** @param what - such as `Redis at localhost:6379` */
  constructor(log: Logger, what: string) {
    this.#log = log;
    this.#what = what;
  }

  /** A call failed, or found no answer. */
  away(reason: string): void {
    clearTimeout(this.#settling);
    if (this.#since !== undefined) return;
    this.#since = performance.now();
    this.#log.warn({ reason }, `${this.#what} is away; waiting for it`);
  }

  /**
   * A call or a connection succeeded. Another one may fail in the next moment, as long as the
   * server is starting or refuses what it is asked: only quiet makes an end.
   */
  back(): void {
    if (this.#since === undefined) return;
    const seconds = (performance.now() - this.#since) / 1000;
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => {
      this.#since = undefined;
      this.#log.info(`${this.#what} is back after ${seconds.toFixed(seconds < 10 ? 1 : 0)} s`);
    }, SETTLE_MS).unref();
  }
}
