import { readFileSync } from 'node:fs';

/** A line of a kept run, of whichever bench. */
export type Row = Readonly<Record<string, unknown>>;

/** The rows of a kept run: `bench/results/FILE.json`. */
export function readRows(file: string, rows = 'contestants'): readonly Row[] {
  const path = new URL(`../results/${file}.json`, import.meta.url);
  return (JSON.parse(readFileSync(path, 'utf8')) as Record<string, Row[]>)[rows] ?? [];
}

/** The only row with that name. */
export function readRow(file: string, name: string, rows = 'contestants'): Row {
  const found = readRows(file, rows).find((row) => row['name'] === name);
  if (!found) throw new Error(`bench/results/${file}.json has no ${name}`);
  return found;
}

export const thousands = (value: unknown): string => Number(value).toLocaleString('en');
