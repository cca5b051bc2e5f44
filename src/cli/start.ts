import type { Command } from 'commander';

export function addStart(program: Command): void {
  program
    .command('start')
    .description('run the workers and the board together, until SIGTERM or SIGINT')
    .option('--json', 'print the totals as JSON in the end')
    .addHelpText(
      'after',
      `
What one machine needs: \`annals worker\` and \`annals board\` in one process, on embedded servers where
none are configured. Stops as \`annals worker\` does.

Examples:
  $ annals start
  $ DATABASE_URL=postgresql://… REDIS_URL=redis://… annals start`,
    )
    .action(async (options: { json?: boolean }) => {
      const { start } = await import('./actions/start.ts');
      await start(options);
    });
}
