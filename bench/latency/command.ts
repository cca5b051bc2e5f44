import type { Command } from 'commander';

import { exitOnSignals, present, wholeNumber, wholeNumbers } from '../command.ts';
import { latency, type Latency, type LatencyOptions } from './run.ts';

export function addLatencyBench(program: Command): void {
  program
    .command('latency')
    .description(
      'Measures at steady rates how long it takes from a call of emit until another session of ' +
        'PostgreSQL sees the row: one producer, one worker process, default settings.',
    )
    .option(
      '--rates <list>',
      'events a second, with commas between',
      wholeNumbers,
      [1, 1000, 10_000],
    )
    .option('--rounds <n>', 'turns at each rate', wholeNumber, 3)
    .option('--seconds <n>', 'of each turn that are measured', wholeNumber, 20)
    .option('--report <file>', 'write the figures as JSON to this file')
    .addHelpText('after', '\nExit codes: 0 every event became a row; 1 otherwise.')
    .action(async ({ report: file, ...options }: LatencyOptions & { report?: string }) => {
      exitOnSignals();
      const report = await latency(options);
      const row = ({ eventsPerSecond, samples, p50Ms, p99Ms, maxMs, verified }: Latency) => ({
        'events/s': eventsPerSecond,
        samples,
        'p50 ms': p50Ms,
        'p99 ms': p99Ms,
        'most ms': maxMs,
        verified,
      });
      present(report, row, file);
    });
}
