/** One line of a byte stream, numbered from 1: its text, or why it has none. */
export type Line = { number: number } & ({ text: string } | { fault: string });

const NEWLINE = 0x0a;

/** Pieces of a line that are joined at the latest: a writer may send byte by byte. */
const MAX_PIECES = 1000;

/**
 * Splits a byte stream into lines, without the white space around them. It holds one line at most,
 * and of a line that is too long only the beginning. Lines end with LF or CRLF; a byte order mark
 * is dropped; blank lines are left out but counted; bytes that are not UTF-8 are a fault of their
 * line, never replaced in silence.
 *
 * @param maxBytes - bytes of a line at most
 *
 * @example for await (const line of readLines(process.stdin, 1024 * 1024)) …
 */
export async function* readLines(
  source: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<Line> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let held: Uint8Array[] = [];
  let heldBytes = 0;
  let number = 0;

  const endLine = (): Line | undefined => {
    number++;
    const bytes = Buffer.concat(held);
    const isTooLong = heldBytes > maxBytes;
    [held, heldBytes] = [[], 0];
    if (isTooLong) return { number, fault: `the line is longer than ${maxBytes} bytes` };
    try {
      const text = decoder.decode(bytes).trim();
      return text === '' ? undefined : { number, text };
    } catch {
      return { number, fault: 'the line is not UTF-8' };
    }
  };

  for await (const chunk of source) {
    for (let start = 0; start < chunk.length;) {
      const found = chunk.indexOf(NEWLINE, start);
      const end = found === -1 ? chunk.length : found;
      // What is too long already is only passed over.
      if (heldBytes <= maxBytes) held.push(chunk.subarray(start, end));
      if (held.length > MAX_PIECES) held = [Buffer.concat(held)];
      heldBytes += end - start;
      start = end + 1;
      if (found === -1) continue;
      const line = endLine();
      if (line) yield line;
    }
  }
  if (heldBytes > 0) {
    const line = endLine();
    if (line) yield line;
  }
}
