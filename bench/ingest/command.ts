import { InvalidArgumentError, type Command } from 'commander';

import { exitOnSignals, present, wholeNumber } from '../command.ts';
import { CONTESTANT_NAMES, type ContestantName } from '../contestants/index.ts';
import type { ContestantReport } from './report.ts';
import { ingest } from './run.ts';

interface Options {
  events: number;
  memories: number;
  rounds: number;
  contestants: ContestantName[];
  warmUp: boolean;
  report?: string;
}

/** Names with commas between them. */
const contestantNames = (text: string): ContestantName[] =>
  text.split(',').map((name) => {
    const found = CONTESTANT_NAMES.find((each) => each === name.trim());
    if (found) return found;
    throw new InvalidArgumentError(`There are ${CONTESTANT_NAMES.join(', ')}.`);
  });

/** A line of the table that is shown at the end. */
export const rowOf = (report: Omit<ContestantReport, 'name'>) => ({
  'events/s': report.eventsPerSecond ?? 'failed',
  spread: report.spread?.join(' to ') ?? '',
  'CPU s/M': report.cpuSecondsPerMillion,
  PostgreSQL: report.postgresCpuSecondsPerMillion,
  Redis: report.redisCpuSecondsPerMillion,
  'peak MB': report.peakRssMb,
  'WAL B': report.walBytesPerEvent,
  verified: report.verified,
});

export function addIngestBench(program: Command): void {
  program
    .command('ingest')
    .description(
      'Compares ways to bring the same events, from emit to committed, into the same tables: two ' +
        'producers, servers of their own, turns in each round, every row checked after each turn.',
    )
    .option('--events <n>', 'events in a turn; slow contestants take a part', wholeNumber, 200_000)
    .option('--memories <n>', 'memories that the accesses go to', wholeNumber, 10_000)
    .option('--rounds <n>', 'turns of each contestant', wholeNumber, 3)
    .option('--contestants <names>', CONTESTANT_NAMES.join(','), contestantNames, CONTESTANT_NAMES)
    .option('--no-warm-up', 'do not have the processes of a turn store some events first')
    .option('--report <file>', 'write the figures as JSON to this file')
    .addHelpText('after', '\nExit codes: 0 every contestant stored the right rows; 1 otherwise.')
    .action(async ({ events, memories, report: file, ...options }: Options) => {
      exitOnSignals();
      const report = await ingest({ events, memories }, options);
      present(report, rowOf, file);
    });
}
