import type { Command } from 'commander';

export function addReplay(program: Command): void {
  program
    .command('replay')
    .description('store recorded conversations (OpenAI chat format, one a line)')
    .argument('<file>', 'NDJSON of {task_id, trial, reward, user_id, messages}')
    .option(
      '--name <name>',
      "begins the sessions' names (default: the file's name up to the first -)",
    )
    .option(
      '--agent <id>',
      "the agent's id (default: the rest of the file's name, then - and --name)",
    )
    .option('--start <time>', 'when the first conversation starts', '2024-05-15T15:00:00Z')
    .option('--report <file>', 'write the figures as JSON to this file')
    .option('--json', 'print the figures as JSON')
    .addHelpText(
      'after',
      `
Every message becomes a session event, every look-up a memory access, every change a state
transition, and every conversation a session with three metrics. Conversation n starts n minutes
after --start, and message k comes k seconds after that.

A wrong line ends the command, with its number, before anything is written. Ids are derived from the
file: a second replay changes nothing, and one that was interrupted is completed by the next. It runs
workers of its own beside any that run already, waits until every event is a row, and counts the rows.
Exits with 1 if anything is missing, became a dead letter or differs from what the file says.

Examples:
  $ annals replay airline-gpt-4o.ndjson        sessions airline-0-0, …; agent gpt-4o-airline
  $ annals replay traces.ndjson --name shop --agent shop-agent --report report.json`,
    )
    .action(async (file: string, options: ReplayCommandOptions) => {
      const { replayFile } = await import('./actions/replay.ts');
      await replayFile(file, options);
    });
}

export interface ReplayCommandOptions {
  name?: string;
  agent?: string;
  start: string;
  report?: string;
  json?: boolean;
}
