import type { Command } from 'commander';

import { exitOnSignals, present, wholeNumber } from '../command.ts';
import { emitBench, type CallTimes, type EmitOptions } from './run.ts';

export function addEmitBench(program: Command): void {
  program
    .command('emit')
    .description(
      'Measures what one call takes from its caller, in a process that sends what it emits to a ' +
        'queue of its own meanwhile, and how late the event loop is at 100,000 events a second.',
    )
    .option(
      '--calls <n>',
      'calls in a turn; those that are waited for are fewer',
      wholeNumber,
      200_000,
    )
    .option('--rounds <n>', 'turns of each contestant, after a warm-up', wholeNumber, 3)
    .option('--seconds <n>', 'for which the event loop is watched', wholeNumber, 3)
    .option('--report <file>', 'write the figures as JSON to this file')
    .action(async ({ report: file, ...options }: EmitOptions & { report?: string }) => {
      exitOnSignals();
      const report = await emitBench(options);
      console.table(Object.fromEntries(report.eventLoop.map(({ name, ...rest }) => [name, rest])));
      const row = ({ calls, p50Ns, p99Ns, p999Ns }: CallTimes) => ({
        calls,
        'p50 ns': p50Ns,
        'p99 ns': p99Ns,
        'p99.9 ns': p999Ns,
      });
      present(report, row, file);
    });
}
