import type { Command } from 'commander';

export function addMigrate(program: Command): void {
  program
    .command('migrate')
    .description('bring the database up to date')
    .option('--status', 'only say what is pending; exits with 1 if anything is')
    .option('--baseline', 'take plain tables that exist for the work of the first migration')
    .option('--json', 'print the outcome as JSON')
    .addHelpText(
      'after',
      `
Safe while the database is in use: each step fails fast rather than stopping traffic, and can be
run again.

Examples:
  $ annals migrate --status
  $ DATABASE_URL=postgresql://… annals migrate`,
    )
    .action(async (options: MigrateOptions) => {
      const { migrate } = await import('./actions/migrate.ts');
      await migrate(options);
    });
}

export interface MigrateOptions {
  status?: boolean;
  baseline?: boolean;
  json?: boolean;
}
