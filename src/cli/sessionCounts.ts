import type { Command } from 'commander';

export function addSessionCounts(program: Command): void {
  program
    .command('session-counts')
    .description("the agents' session counts, which workers check on a schedule")
    .command('run')
    .description('count the sessions of every agent again, now, and heal what is wrong')
    .option('--json', 'print what was found as JSON')
    .addHelpText(
      'after',
      `
Safe while sessions are created and other recounts run. Only agents whose figure is wrong are
written. Workers do the same as ANNALS_SESSION_COUNTS_SCHEDULE says.

Examples:
  $ annals session-counts run
  $ annals session-counts run --json`,
    )
    .action(async (options: { json?: boolean }) => {
      const { runSessionCounts } = await import('./actions/sessionCounts.ts');
      await runSessionCounts(options);
    });
}
