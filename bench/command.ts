import { writeFileSync } from 'node:fs';
import { constants } from 'node:os';

import { InvalidArgumentError } from 'commander';

export function wholeNumber(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('It takes a whole number above 0.');
}

/** Whole numbers with commas between them. */
export const wholeNumbers = (text: string): number[] => text.split(',').map(wholeNumber);

/** Ends the process on Ctrl-C by way of `exit`, where servers are stopped. */
export function exitOnSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => process.exit(128 + constants.signals[signal]));
  }
}

/** What all benches with contestants end with: a table, what went wrong, the file, the exit code. */
export function present<
  Each extends { name: string; verified?: boolean; failures?: readonly string[] },
>(
  report: { contestants: readonly Each[] },
  row: (each: Each) => Record<string, unknown>,
  file: string | undefined,
): void {
  const { contestants } = report;
  console.table(Object.fromEntries(contestants.map((each) => [each.name, row(each)])));
  for (const { name, failures = [] } of contestants) {
    for (const failure of failures) console.log(`${name}: ${failure}`);
  }
  if (file) writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
  if (contestants.some(({ verified = true }) => !verified)) process.exitCode = 1;
}
