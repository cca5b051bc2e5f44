import { writeFileSync } from 'node:fs';

import { Option, type Command } from 'commander';

import { wholeNumber } from '../command.ts';
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
  /** Resident memory of a process that runs the engine alone, at most. */
  peakRssMb: number;
  /** The same at a quarter of the run, and at most in its last quarter. */
  quarterRssMb: number;
  lastQuarterRssMb: number;
  /** What the engine's run was said to take after a tenth of it, by what it took. */
  estimateAtTenth: number;
}

interface Options {
  rows: number;
  ids: 'mixed' | 'random';
  report?: string;
}

export function addBackfillBench(program: Command): void {
  program
    .command('backfill')
    .description(
      'Compares, on copies of the same data: a single UPDATE per table (the floor), the backfill ' +
        'with its verification, and a loop of Prisma reads and updates (on a part).',
    )
    .option('--rows <n>', 'rows in all', wholeNumber, 1_000_000)
    .addOption(
      new Option('--ids <kind>', 'ids that grow with time but for memories, or none that do')
        .choices(['mixed', 'random'])
        .default('mixed'),
    )
    .option('--report <file>', 'write the figures as JSON to this file')
    .action(async ({ rows, ids, report: file }: Options) => {
      const report = await onOwnGround((ground) => measure(ground, rows, ids));
      console.table(report);
      if (file) writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
    });
}
