/** Milliseconds between two lines: on a terminal, where they replace each other, and elsewhere. */
const EVERY_MS = { terminal: 100, plain: 10_000 };

/**
 * Shows on standard error how far long work is; short work shows nothing.
 *
 * @example const counter = createCounter('dead letters retried'); counter.add(1); counter.end();
 */
export function createCounter(what: string, stream: NodeJS.WriteStream = process.stderr) {
  const everyMs = stream.isTTY ? EVERY_MS.terminal : EVERY_MS.plain;
  let count = 0;
  let shownAt = performance.now();
  let isShown = false;
  return {
    add(more: number): void {
      count += more;
      if (performance.now() - shownAt < everyMs) return;
      shownAt = performance.now();
      isShown = true;
      const line = `${count.toLocaleString('en')} ${what}`;
      stream.write(stream.isTTY ? `\r\u001B[2K${line}` : `${line}\n`);
    },
    /** Clears the terminal's line, for the outcome. */
    end(): void {
      if (isShown && stream.isTTY) stream.write('\r\u001B[2K');
    },
  };
}
