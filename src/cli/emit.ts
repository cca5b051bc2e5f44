import type { Command } from 'commander';

export function addEmit(program: Command): void {
  program
    .command('emit')
    .description('send events to the queues, one JSON object a line')
    .argument('[file]', 'where the lines are; - or nothing: standard input')
    .option('--kind <kind>', 'kind of the events that do not name theirs')
    .option('--strict', 'stop at the first wrong line')
    .option('--json', 'print the summary as JSON')
    .addHelpText(
      'after',
      `
A line is an event and its kind (memory-access, transition, metrics or session-event). A wrong one
is reported with its number and skipped. "id" (a UUID) and "occurredAt" may be left out; events that
bring their ids may be sent again without harm. Exits with 1 if a line was wrong or an event dropped.
Events that the queue does not take are kept in ANNALS_SPOOL_DIR, which is no failure: the next
producer, or the next "annals emit" (of /dev/null, say), sends them.

Examples:
  $ annals emit events.ndjson
  $ my-agent | annals emit --strict
  $ echo '{"kind":"memory-access","memoryId":"m1","accessType":"read","accessedBy":"agent-id","accessorType":"agent"}' | annals emit`,
    )
    .action(async (file: string | undefined, options: EmitOptions) => {
      const { emit } = await import('./actions/emit.ts');
      await emit(file, options);
    });
}

export interface EmitOptions {
  kind?: string;
  strict?: boolean;
  json?: boolean;
}
