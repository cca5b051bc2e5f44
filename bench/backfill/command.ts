import { writeFileSync } from 'node:fs';

import { InvalidArgumentError, type Command } from 'commander';

import { onOwnGround } from '../ground.ts';
import { measure } from './measure.ts';

/** What `--report` writes. */
export interface BackfillReport {
  rows: number;
  floorRowsPerSecond: number;
  engineRowsPerSecond: number;
  loopRowsPerSecond: number;
  ratioToFloor: number;
  ratioToLoop: number;
  peakRssMb: number;
}

export const wholeNumber = (text: string): number => {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('It takes a whole number above 0.');
};

export function addBackfillBench(program: Command): void {
  program
    .command('backfill')
    .description(
      'Compares, on copies of the same data: a single UPDATE per table (the floor), the backfill ' +
        'with its verification, and a loop of Prisma reads and updates (on a part).',
    )
    .option('--rows <n>', 'rows in all', wholeNumber, 1_000_000)
    .option('--report <file>', 'write the figures as JSON to this file')
    .action(async ({ rows, report: file }: { rows: number; report?: string }) => {
      const report = await onOwnGround((ground) => measure(ground, rows));
      console.table(report);
      if (file) writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
    });
}
