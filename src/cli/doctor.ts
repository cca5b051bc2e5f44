import type { Command } from 'commander';

export interface DoctorOptions {
  json?: boolean;
}

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('look whether everything that Annals needs is there, and fit; changes nothing')
    .option('--json', 'print the findings as JSON')
    .addHelpText(
      'after',
      `
Looks at the configuration, at PostgreSQL (version, migrations, durability, connections), Redis
(eviction, persistence), disks and clocks, as this process sees them. With nothing configured it
starts and looks at the embedded servers. Each finding says what to do about it. Exits with 1 if one
has failed; a warning is no failure.

Examples:
  $ annals doctor
  $ annals doctor --json | jq '.findings[] | select(.status != "ok")'`,
    )
    .action(async (options: DoctorOptions) => {
      const { doctor } = await import('./actions/doctor.ts');
      await doctor(options);
    });
}
