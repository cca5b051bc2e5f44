import type { Command } from 'commander';

export interface AuditOptions {
  wait: string;
  json?: boolean;
}

export function addAudit(program: Command): void {
  program
    .command('audit')
    .description('compare what producers accepted with what became of it')
    .option(
      '--wait <seconds>',
      'time that events may be on their way before they are missing',
      '10',
    )
    .option('--json', 'print the outcome as JSON')
    .addHelpText(
      'after',
      `
accepted = committed + repeated + dead letters + discarded + dropped + queued + spooled.
Exits with 1 if accepted events are none of these. It reads every job of the event queues, and the
spool of this machine; of producers on others, the spool there counts as missing until it is sent.
What the spool here holds for other queues is warned of (see "annals emit --spool").

Examples:
  $ annals audit
  $ annals audit --wait 60 --json`,
    )
    .action(async (options: AuditOptions) => {
      const { showAudit } = await import('./actions/audit.ts');
      await showAudit(options);
    });
}
