#!/usr/bin/env node
import { readFileSync } from 'node:fs';

import { Command, CommanderError } from 'commander';

import { addAudit } from './audit.ts';
import { addBackfill } from './backfill.ts';
import { addBoard } from './board.ts';
import { addDeadLetters } from './deadLetters.ts';
import { addDoctor } from './doctor.ts';
import { addEmit } from './emit.ts';
import { addExec } from './exec.ts';
import { reportFailure } from './failure.ts';
import { addMigrate } from './migrate.ts';
import { addReplay } from './replay.ts';
import { addSessionCounts } from './sessionCounts.ts';
import { addStart } from './start.ts';
import { addWorker } from './worker.ts';

// Whatever a command needs is loaded by its action: `annals --help` must not wait for Prisma.

const { version, description } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
) as { version: string; description: string };

const program = new Command('annals')
  .description(description)
  .version(version)
  .exitOverride()
  .enablePositionalOptions()
  .showHelpAfterError('(annals --help says more)')
  .addHelpText(
    'after',
    `
Examples:
  $ annals start                               run workers and board, all on this machine
  $ annals worker                              write what the queues hold, until stopped
  $ annals emit events.ndjson                  send events from a file
  $ annals replay airline-gpt-4o.ndjson        store recorded conversations
  $ annals dead-letters list                   see what could not be stored, and why
  $ annals audit                               see what became of all events
  $ annals migrate --status                    see whether the database is up to date
  $ annals backfill start                      fill in the enhanced columns of existing rows
  $ annals exec psql                           look into the database, embedded or not
  $ annals session-counts run                  heal the agents' session counts now
  $ annals doctor                              look whether all that is needed is there, and fit

With nothing configured, an embedded PostgreSQL (and redis-server, where it is on the PATH) keeps
its data in .annals/. DATABASE_URL and REDIS_URL name servers of your own.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.`,
  );

const COMMANDS = [
  addStart,
  addWorker,
  addBoard,
  addMigrate,
  addBackfill,
  addEmit,
  addReplay,
  addDeadLetters,
  addAudit,
  addExec,
  addSessionCounts,
  addDoctor,
];
for (const add of COMMANDS) add(program);

// Whoever read our output may have had enough of it (`annals … | head`); the work goes on.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
}

try {
  await program.parseAsync();
} catch (error) {
  // Commander has said what is wrong, or printed the help or version that was asked for.
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else process.exitCode = await reportFailure(error);
}
// By force, so that no connection that is left keeps us here; but what was printed goes out first.
process.stdout.write('', () => process.exit());
