import type { Command } from 'commander';

export interface DeadLetterOptions {
  kind?: string;
  reason?: string;
  since?: string;
  until?: string;
  id?: string[];
  limit?: string;
  json?: boolean;
}

export function addDeadLetters(program: Command): void {
  const deadLetters = program
    .command('dead-letters')
    .description('look at events that could not be stored, and bring them back')
    .addHelpText(
      'after',
      `
A dead letter is a failed job that holds the events that could not be stored, and why. It waits for
you: mend the cause and retry it, or export its events, mend them and emit them again.

Examples:
  $ annals dead-letters list
  $ annals dead-letters retry --reason 'unknown id "memory-7"'
  $ annals dead-letters export --kind metrics --output metrics.ndjson`,
    );

  const command = (name: string, description: string, limit: string, examples: string) =>
    deadLetters
      .command(name)
      .description(description)
      .option('--queue, --kind <kind>', 'memory-access, transition, metrics or session-event')
      .option('--reason <text>', 'those with this text in a reason, in capitals or not')
      .option('--since <time>', 'failed since then: 2024-05-15T15:00:00Z, or 30m, 2h, 7d ago')
      .option('--until <time>', 'failed until then')
      .option('--id <id...>', 'those with these ids, such as metrics/12')
      .option('--limit <n>', `dead letters at most, the newest first (default: ${limit})`)
      .option('--json', 'print JSON; `list` and `show`: an object a line')
      .addHelpText('after', `\nExamples:\n${examples}`);

  command(
    'list',
    'list dead letters, the newest first',
    '20; 0: all',
    `  $ annals dead-letters list --since 1d
  $ annals dead-letters list --limit 0 --json`,
  ).action(async (options: DeadLetterOptions) => {
    const { list } = await import('./actions/deadLetters.ts');
    await list(options);
  });

  command(
    'show',
    'print dead letters with their events, and why each could not be stored',
    '5; 0: all',
    `  $ annals dead-letters show --id memory-access/12
  $ annals dead-letters show --kind transition --limit 1 --json`,
  ).action(async (options: DeadLetterOptions) => {
    const { show } = await import('./actions/deadLetters.ts');
    await show(options);
  });

  command(
    'retry',
    'give dead letters back to their queue, as the board does',
    'all',
    `  $ annals dead-letters retry --reason 'unknown id'
  $ annals dead-letters retry --id memory-access/12 metrics/3

Repeat it as you like: an event is stored once. What fails again is a dead letter again.`,
  ).action(async (options: DeadLetterOptions) => {
    const { retry } = await import('./actions/deadLetters.ts');
    await retry(options);
  });

  command(
    'export',
    'write the events of dead letters as lines that `annals emit` takes; they stay where they are',
    'all',
    `  $ annals dead-letters export --kind metrics > metrics.ndjson
  $ annals dead-letters export --until 7d --output old.ndjson
  $ annals emit metrics.ndjson                 once they are mended`,
  )
    .option('-o, --output <file>', 'a new file, instead of standard output')
    .action(async (options: DeadLetterOptions & { output?: string }) => {
      const { exportDeadLetters } = await import('./actions/exportDeadLetters.ts');
      await exportDeadLetters(options);
    });

  command(
    'discard',
    'remove dead letters for good; `annals audit` counts their events as discarded',
    'all',
    `  $ annals dead-letters discard --id metrics/3
  $ annals dead-letters discard --until 30d --yes`,
  )
    .option('--yes', 'do not ask')
    .action(async (options: DeadLetterOptions & { yes?: boolean }) => {
      const { discardDeadLetters } = await import('./actions/discardDeadLetters.ts');
      await discardDeadLetters(options);
    });
}
