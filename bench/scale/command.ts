import type { Command } from 'commander';

import { exitOnSignals, present, wholeNumber, wholeNumbers } from '../command.ts';
import { rowOf } from '../ingest/command.ts';
import { scale } from './run.ts';

interface Options {
  events: number;
  memories: number;
  rounds: number;
  workers: number[];
  report?: string;
}

export function addScaleBench(program: Command): void {
  program
    .command('scale')
    .description(
      'Ingests the same events with one, two and four worker processes, and shows what takes the ' +
        'CPU meanwhile. Turns in each round.',
    )
    .option('--events <n>', 'events in a turn', wholeNumber, 800_000)
    .option('--memories <n>', 'memories that the accesses go to', wholeNumber, 10_000)
    .option('--rounds <n>', 'turns of each', wholeNumber, 3)
    .option('--workers <list>', 'worker processes, with commas between', wholeNumbers, [1, 2, 4])
    .option('--report <file>', 'write the figures as JSON to this file')
    .addHelpText('after', '\nExit codes: 0 the right rows were stored in every turn; 1 otherwise.')
    .action(async ({ events, memories, report: file, ...options }: Options) => {
      exitOnSignals();
      const report = await scale({ events, memories }, options);
      const row = (each: (typeof report.contestants)[number]) => ({
        'own CPU %': each.ownCpuPercent,
        'PostgreSQL %': each.postgresCpuPercent,
        'Redis %': each.redisCpuPercent,
        ...rowOf(each),
      });
      present(report, row, file);
    });
}
