import type { Check } from './audit.ts';
import { number } from './progress.ts';

/** What `--report` writes. */
export interface Report {
  /** Whether every check is. */
  ok: boolean;
  queueBackend: 'redis' | 'postgres';
  database: 'embedded' | 'configured';
  /** Events emitted, those emitted again on purpose included. */
  emitted: number;
  /** Rows of events. */
  committed: number;
  /** Events that were emitted again on purpose. */
  duplicates: number;
  /** Jobs that failed for good. */
  deadLetters: number;
  /** Different events that are no rows. */
  lost: number;
  /** Rows, from the first emit to the last commit. */
  eventsPerSecond: number;
  checks: Check[];
}

/** The checks as a table for people. */
export function table(checks: readonly Check[]): string {
  const rows = [
    ['', 'expected', 'found', ''],
    ...checks.map(({ name, expected, actual, ok }) => [
      name,
      show(expected),
      show(actual),
      mark(ok),
    ]),
  ];
  const widths = [0, 1, 2].map((column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  const [nameWidth = 0, expectedWidth = 0, foundWidth = 0] = widths;
  return rows
    .map(([name = '', expected = '', found = '', ok = '']) =>
      `  ${name.padEnd(nameWidth)}  ${expected.padStart(expectedWidth)}  ${found.padStart(foundWidth)}  ${ok}`.trimEnd(),
    )
    .join('\n');
}

/** @param waited - times that an event was met before its parent */
export function summary(report: Report, waited: number): string {
  const wrong = report.checks.filter(({ ok }) => !ok);
  const verdict =
    wrong.length === 0
      ? `${mark(true)} Nothing lost, nothing twice: all ${report.checks.length} checks hold.`
      : `${mark(false)} ${wrong.length} of ${report.checks.length} checks fail: ${wrong.map(({ name }) => name).join('; ')}.`;
  return [
    verdict,
    `  ${number(report.committed)} events committed at ${number(report.eventsPerSecond)} a second, first emit to last commit.`,
    `  ${number(report.duplicates)} were emitted twice and stored once; ${number(waited)} times one came before its parent and waited.`,
  ].join('\n');
}

const show = (value: number | string) => (typeof value === 'number' ? number(value) : value);
const mark = (ok: boolean) => (ok ? '✓' : '✗');
