import type { LinesOf } from '../../queues/eventList.ts';

/** A table, and how an event becomes a row of it. */
export interface Table {
  name: string;
  /** In the order of `row`. The first is the event's id, and the last one names its parent. */
  columns: readonly string[];
  /**
   * The event as a line of COPY's text format, put together by `text` and `json`; undefined if it goes
   * into another table. Written out, not made of a list of columns, which takes twice as long.
   */
  row: (event: never, text: FieldOf) => string | undefined;
  /** Whether the last column is a session's, which events name by its `id` or its `sessionId`. */
  isOfSession?: true;
}

/** A field of a line: of a text, a number or nothing. */
export type FieldOf = (value: string | number | null | undefined) => string;

/** What has to be escaped in COPY's text format. */
const ESCAPED = /[\\\n\r\t]/;
const ESCAPES: Readonly<Record<string, string>> = {
  '\\': '\\\\',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
};
const UNESCAPES = new Map(Object.entries(ESCAPES).map(([char, escape]) => [escape, char]));

/** How COPY writes NULL. */
const NULL = '\\N';

export const escape = (value: string): string =>
  ESCAPED.test(value) ? value.replace(/[\\\n\r\t]/g, (char) => ESCAPES[char] as string) : value;

export const unescape = (field: string): string =>
  field.includes('\\') ? field.replace(/\\./g, (pair) => UNESCAPES.get(pair) ?? pair) : field;

const plain: FieldOf = (value) => {
  if (value === undefined || value === null) return NULL;
  return typeof value === 'number' ? String(value) : escape(value);
};

/** The same where nothing is to be escaped, as is known of most jobs at once. */
const plainClean: FieldOf = (value) =>
  value === undefined || value === null ? NULL : (value as string);

/** JSON, or NULL. */
export function json(value: unknown): string {
  if (value === undefined || value === null) return NULL;
  const text = JSON.stringify(value); // of all that is to be escaped it has backslashes alone
  return text.includes('\\') ? text.replaceAll('\\', '\\\\') : text;
}

export const linesOf =
  (tables: readonly Table[]): LinesOf =>
  (events, isClean) =>
    tables.map(({ row }) => {
      const text = isClean ? plainClean : plain;
      const lines: string[] = [];
      for (const event of events) {
        const line = row(event as never, text);
        if (line !== undefined) lines.push(line);
      }
      return lines.join('\n');
    });

export const split = (lines: string): string[] => (lines === '' ? [] : lines.split('\n'));

/** Where the last field of a line begins. */
const lastAt = (line: string) => line.lastIndexOf('\t') + 1;

export const lastOf = (line: string): string => line.slice(lastAt(line));

export const withLast = (line: string, last: string): string => line.slice(0, lastAt(line)) + last;
