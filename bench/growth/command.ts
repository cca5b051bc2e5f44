import type { Command } from 'commander';

import { exitOnSignals, present, wholeNumber, wholeNumbers } from '../command.ts';
import { rowOf } from '../ingest/command.ts';
import { growth } from './run.ts';

interface Options {
  events: number;
  memories: number;
  rounds: number;
  sizes: number[];
  report?: string;
}

const SIZES = [100_000, 1_000_000, 10_000_000];

export function addGrowthBench(program: Command): void {
  program
    .command('growth')
    .description(
      'Ingests the same events into tables that hold more and more rows already, each size in a ' +
        'database of its own, with turns in each round. It takes 3 GB of disk.',
    )
    .option('--events <n>', 'events in a turn', wholeNumber, 200_000)
    .option('--memories <n>', 'memories that the accesses go to', wholeNumber, 10_000)
    .option('--rounds <n>', 'turns in each size, after a warm-up', wholeNumber, 3)
    .option('--sizes <list>', 'rows held before, with commas between', wholeNumbers, SIZES)
    .option('--report <file>', 'write the figures as JSON to this file')
    .addHelpText('after', '\nExit codes: 0 the right rows were stored in every turn; 1 otherwise.')
    .action(async ({ events, memories, report: file, ...options }: Options) => {
      exitOnSignals();
      const report = await growth({ events, memories }, options);
      present(report, (each) => ({ 'MB before': each.megabytesBefore, ...rowOf(each) }), file);
    });
}
