import type { Command } from 'commander';

export function addEmit(program: Command): void {
  program
    .command('emit')
    .description('send events to the queues, one JSON object a line')
    .argument('[file]', 'where the lines are; - or nothing: standard input')
    .option('--kind <kind>', 'kind of the events that do not name theirs')
    .option('--strict', 'stop at the first wrong line')
    .option('--spool <folder>', 'send instead what dead producers to other queues left there')
    .option('--json', 'print the summary as JSON')
    .addHelpText(
      'after',
      `
A line is an event and its kind (memory-access, transition, metrics or session-event). A wrong one
is reported with its number and skipped. "id" (a UUID) and "occurredAt" may be left out; events that
bring their ids may be sent again without harm. Exits with 1 if a line was wrong or an event dropped.
Events that the queue does not take are kept in ANNALS_SPOOL_DIR, which is no failure: the next
producer, or the next "annals emit" (of /dev/null, say), sends them. When the address of the queues
changes, what was spooled for the old one stays in a folder of its own, which "annals doctor" names:
--spool sends it to the queues of now, and exits with 1 if some of it is left.

Examples:
  $ annals emit events.ndjson
  $ my-agent | annals emit --strict
  $ annals emit --spool .annals/spool/0123456789abcdef
  $ echo '{"kind":"memory-access","memoryId":"m1","accessType":"read","accessedBy":"agent-id","accessorType":"agent"}' | annals emit`,
    )
    .action(async (file: string | undefined, options: EmitOptions) => {
      if (options.spool !== undefined) {
        const { emitSpool } = await import('./actions/emitSpool.ts');
        await emitSpool(options.spool, file, options);
        return;
      }
      const { emit } = await import('./actions/emit.ts');
      await emit(file, options);
    });
}

export interface EmitOptions {
  kind?: string;
  strict?: boolean;
  spool?: string;
  json?: boolean;
}
