import type { Command } from 'commander';

export interface BackfillOptions {
  json?: boolean;
}

export interface SteerOptions extends BackfillOptions {
  detach?: boolean;
}

export interface StartOptions extends SteerOptions {
  dryRun?: boolean;
  targetMs: string;
  lanes: string;
  maxChunkRows: string;
  restMs: string;
  maxLagMs: string;
  lagQuery?: string;
  maxWaitMs: string;
  maxVacuumMs: string;
  maxWriteMs: string;
  maxQueuedJobs: string;
}

/** As text, as they come from a command line. */
export const START_DEFAULTS = {
  targetMs: '500',
  lanes: '2',
  maxChunkRows: '100000',
  restMs: '0',
  maxLagMs: '5000',
  maxWaitMs: '1000',
  maxVacuumMs: '30000',
  maxWriteMs: '2000',
  maxQueuedJobs: '1000',
} satisfies StartOptions;

/** What steers runs and is over at once. */
const STEERING = {
  pause: {
    description: 'hold runs after the chunks that are under way',
    help: `
Takes effect within two seconds. A run that is paused stays so until resume or cancel.

Examples:
  $ annals backfill pause
  $ annals backfill pause agents module-states`,
  },
  resume: {
    description: 'go on with runs that are paused',
    help: `
The work is done by \`annals worker\`, or by \`annals backfill start\`, which also watches.

Examples:
  $ annals backfill resume
  $ annals backfill resume agents`,
  },
  cancel: {
    description: 'end runs where they are; what they did stays',
    help: `
The next start goes on where it was, since the rows say what is left; rollback takes it back.

Examples:
  $ annals backfill cancel
  $ annals backfill cancel interaction-memories`,
  },
} as const;

/** What brings work about, which is done and shown here as that of start is. */
const REWORKING = {
  retry: {
    description: 'try again what is in quarantine, or a run that failed',
    help: `
First mend the cause, which \`annals backfill status\` and the table BackfillQuarantine tell. Works
on it here until it ends. Exits with 0 when all that was tried has completed.

Examples:
  $ annals backfill retry
  $ annals backfill retry agents --detach      leave it to the workers`,
  },
  rollback: {
    description: 'take back what backfills wrote and nobody has changed since',
    help: `
Ends runs that are under way, and works here until all is taken back. What the application has
changed since stays. Exits with 0 when all was taken back, or nothing was there to take back.

Examples:
  $ annals backfill rollback
  $ annals backfill rollback agents --detach   leave it to the workers`,
  },
} as const;

export type Steering = keyof typeof STEERING;
export type Reworking = keyof typeof REWORKING;

export function addBackfill(program: Command): void {
  const backfill = program
    .command('backfill')
    .description('fill in the enhanced columns of existing rows, while the tables are in use')
    .addHelpText(
      'after',
      `
Tables: agent-sessions, module-states, agents, interaction-memories (default: all). A run lives in
PostgreSQL: it survives the end of any process, and every \`annals worker\` works on it. Commands take
effect within two seconds and may be repeated.

Examples:
  $ annals backfill start --dry-run            look at a sample, before and after; change nothing
  $ annals backfill start                      start, work on it here, and watch
  $ annals backfill pause agents               hold one table; resume goes on
  $ annals backfill rollback                   take back all that backfills have written`,
    );

  const command = (name: string, description: string, help: string) =>
    backfill
      .command(name)
      .description(description)
      .argument('[tables...]', 'names of tables (default: all)')
      .option('--json', 'print the outcome as JSON')
      .addHelpText('after', help);

  command(
    'start',
    'start runs, work on them here until they end, and show how far they are',
    `
Where a run is under way already, it is gone on with. Exits with 0 when all runs have completed
(nothing remaining, nothing differing), and with 1 otherwise. Ctrl-C ends the work here; the runs go
on where workers run, or with the next start. A run that was paused before is not waited for: it
is said to be, and the exit code is 1. A dry run exits with 1 if a row of the sample was refused.

Examples:
  $ annals backfill start --dry-run            look first
  $ annals backfill start                      all four tables
  $ annals backfill start agents --detach      one table, done by the workers
  $ annals backfill start --target-ms 100 --rest-ms 200 --lanes 1   at an easy pace`,
  )
    .option('--dry-run', 'fill in a sample, show it, roll it back, and estimate the time')
    .option('--detach', 'only start; workers do the work')
    .option('--target-ms <ms>', 'milliseconds that a chunk should take', START_DEFAULTS.targetMs)
    .option(
      '--lanes <n>',
      "ranges of a table's blocks that are worked on at once",
      START_DEFAULTS.lanes,
    )
    .option('--max-chunk-rows <n>', 'rows in a chunk at most', START_DEFAULTS.maxChunkRows)
    .option('--rest-ms <ms>', 'rest after each chunk of a lane', START_DEFAULTS.restMs)
    .option('--max-lag-ms <ms>', 'hold while a replica is further behind', START_DEFAULTS.maxLagMs)
    .option('--lag-query <sql>', 'what gives that lag in ms (default: pg_stat_replication)')
    .option(
      '--max-wait-ms <ms>',
      'hold while a session waits longer for a lock',
      START_DEFAULTS.maxWaitMs,
    )
    .option(
      '--max-vacuum-ms <ms>',
      'hold while a vacuum of the table runs longer',
      START_DEFAULTS.maxVacuumMs,
    )
    .option(
      '--max-write-ms <ms>',
      'hold while a write of event workers takes longer',
      START_DEFAULTS.maxWriteMs,
    )
    .option(
      '--max-queued-jobs <n>',
      'hold while more jobs wait in an event queue',
      START_DEFAULTS.maxQueuedJobs,
    )
    .action(async (tables: string[], options: StartOptions) => {
      const { startRuns } = await import('./actions/backfill.ts');
      await startRuns(tables, options);
    });

  command(
    'status',
    'show the latest run of each table',
    `
Examples:
  $ annals backfill status
  $ annals backfill status agents --json`,
  ).action(async (tables: string[], options: BackfillOptions) => {
    const { showStatus } = await import('./actions/backfill.ts');
    await showStatus(tables, options);
  });

  command(
    'verify',
    'compare what rows hold with what they should hold; exit with 1 if any differ',
    `
Reads the tables and changes nothing. Rows that plain programs have written since the last run
remain to be filled in, which the next start does.

Examples:
  $ annals backfill verify
  $ annals backfill verify agents --json`,
  ).action(async (tables: string[], options: BackfillOptions) => {
    const { verifyTables } = await import('./actions/backfill.ts');
    await verifyTables(tables, options);
  });

  for (const [name, { description, help }] of Object.entries(STEERING)) {
    command(name, description, help).action(async (tables: string[], options: BackfillOptions) => {
      const { steerRuns } = await import('./actions/backfill.ts');
      await steerRuns(name as Steering, tables, options);
    });
  }
  for (const [name, { description, help }] of Object.entries(REWORKING)) {
    command(name, description, help)
      .option('--detach', 'only have it done; workers do the work')
      .action(async (tables: string[], options: SteerOptions) => {
        const { reworkRuns } = await import('./actions/backfill.ts');
        await reworkRuns(name as Reworking, tables, options);
      });
  }
}
