import type { Logger } from './logger.ts';

interface Resource {
  name: string;
  close: () => Promise<unknown>;
  force: (() => Promise<unknown>) | undefined;
}

/** Milliseconds before the deadline at which what can be forced is forced; all of these share them. */
const FORCE_MS = 500;

/**
 * Closes what was opened, in reverse order, once, within a deadline. Whoever opens a resource
 * registers its closing in the same place.
 */
export class Closer {
  readonly #log: Logger;
  #resources: Resource[] = [];
  #closing: Promise<void> | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Registers a closing; `force` is what to do if `close` does not end before the deadline. */
  add(name: string, close: () => Promise<unknown>, force?: () => Promise<unknown>): void {
    this.#resources.push({ name, close, force });
  }

  /** Closes everything; what fails or takes too long is logged and left. Never rejects. */
  close(deadlineMs: number): Promise<void> {
    this.#closing ??= this.#closeAll(performance.now() + deadlineMs);
    return this.#closing;
  }

  async #closeAll(deadline: number): Promise<void> {
    for (const { name, close, force } of this.#resources.toReversed()) {
      const leftMs = (reservedMs = 0) => Math.max(0, deadline - performance.now() - reservedMs);
      if (await this.#attempt(name, close, leftMs(force && FORCE_MS))) continue;
      // However many hang: what is forced after the deadline is not waited for.
      if (force) await this.#attempt(`${name} (forced)`, force, leftMs());
    }
    this.#resources = [];
  }

  /** Whether `close` ended, well or not, in time. */
  async #attempt(
    name: string,
    close: () => Promise<unknown>,
    milliseconds: number,
  ): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(resolve, milliseconds, 'late');
    });
    try {
      const outcome = await Promise.race([close(), late]);
      if (outcome === 'late') this.#log.warn({ resource: name }, 'did not close in time; left');
      return outcome !== 'late';
    } catch (error) {
      this.#log.warn({ resource: name, reason: (error as Error).message }, 'did not close well');
      return true;
    } finally {
      clearTimeout(timer);
    }
  }
}
