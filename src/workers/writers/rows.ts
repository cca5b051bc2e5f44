import type { LinesOf } from '../../queues/eventList.ts';

/** A table, and how an event becomes a row of it. */
export interface Table {
  name: string;
  /** In the order of `row`; then the parent's. */
  columns: readonly string[];
  /**
   * The event as a line of COPY's text format, but for its parent, put together by `text` and `json`. Written out, not made of
   * the list of columns, which takes twice as long.
   */
  row: (event: never, text: FieldOf) => string;
  /** The parent's name; undefined if the event goes into another table. */
  parentOf: (event: never) => string | undefined;
  /** Whether parents are sessions, which events name by `id` or `sessionId`. */
  isOfSessions?: true;
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

const escape = (value: string): string =>
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

/** Makes what makes the lines of a kind's events, of the tables that these go into. */
export const linesOf =
  (tables: readonly Table[]): LinesOf =>
  (events, isClean) => {
    const text = isClean ? plainClean : plain;
    return tables.map(({ row, parentOf, isOfSessions }) => {
      const [lines, sessions]: [string[], Set<string>] = [[], new Set()];
      for (const event of events as readonly never[]) {
        const parent = parentOf(event);
        if (parent === undefined) continue;
        if (isOfSessions) sessions.add(parent);
        lines.push(row(event, text), '\t', text(parent), '\n');
      }
      return { text: lines.join(''), sessions };
    });
  };

/** The last field of a line. */
const PARENT = /\t([^\t\n]*)\n/g;

/** Puts other parents in place of those that the lines have. */
export const withParents = (lines: string, parents: ReadonlyMap<string, string>): string =>
  lines.replace(
    PARENT,
    (_, field: string) => `\t${escape(parents.get(unescape(field)) as string)}\n`,
  );
