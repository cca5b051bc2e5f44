import type { Command } from 'commander';

export function addWorker(program: Command): void {
  program
    .command('worker')
    .description('write what the queues hold to PostgreSQL, until SIGTERM or SIGINT')
    .option('--json', 'print the totals as JSON in the end')
    .addHelpText(
      'after',
      `
Run as many as you like, anywhere. Servers that are away are waited for. Told to stop, it finishes
what it holds within ANNALS_SHUTDOWN_DEADLINE_MS and exits with 0; a second signal ends it at once
(130, 143), which loses nothing.

Examples:
  $ annals worker
  $ DATABASE_URL=postgresql://… REDIS_URL=redis://… annals worker`,
    )
    .action(async (options: { json?: boolean }) => {
      const { work } = await import('./actions/worker.ts');
      await work(options);
    });
}
