import { randomInt } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { constants } from 'node:os';

import { Command, Option } from 'commander';

import type { QueueLocation } from '../../src/queues/backend.ts';
import { onPath } from '../../test/support/programs.ts';
import { wholeNumber } from '../backfill/command.ts';
import { chaos, type ChaosReport } from './run.ts';

interface Options {
  rounds: number;
  seed: number;
  queue: QueueLocation['kind'] | 'both';
  report?: string;
}

const options = new Command('chaos')
  .description(
    'Three producers and two workers at work on servers of their own, while processes and servers are ' +
      'killed with -9, frozen and cut off; then every event is looked for by its id.',
  )
  .option('--rounds <n>', 'rounds of three faults each', wholeNumber, 20)
  .option(
    '--seed <n>',
    'repeats the schedule of an earlier run',
    wholeNumber,
    randomInt(1, 2 ** 31),
  )
  .addOption(
    new Option('--queue <kind>', 'queue back end')
      .choices(['redis', 'postgres', 'both'])
      .default('both'),
  )
  .option('--report <file>', 'write the outcome as JSON to this file')
  .addHelpText(
    'after',
    '\nExit codes: 0 nothing was lost, doubled or miscounted, and no attempt was burned; 1 otherwise.',
  )
  .parse()
  .opts<Options>();

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => process.exit(128 + constants.signals[signal]));
}

const runs: ChaosReport[] = [];
for (const backend of backends(options.queue)) {
  console.log(`queues on ${backend}; --seed ${options.seed}`);
  const report = await chaos(backend, options.rounds, options.seed);
  console.table({ ...report, recoverySeconds: Object.values(report.recoverySeconds).join(' / ') });
  runs.push(report);
}
const report = { ...total(runs), runs };
if (options.report) writeFileSync(options.report, `${JSON.stringify(report, null, 2)}\n`);
process.exit(report.ok ? 0 : 1);

function backends(queue: Options['queue']): QueueLocation['kind'][] {
  if (queue !== 'both') return [queue];
  if (onPath('redis-server')) return ['redis', 'postgres'];
  console.log('redis-server is not on the PATH: queues on PostgreSQL only');
  return ['postgres'];
}

/** The figures of all runs as one. */
function total(all: ChaosReport[]) {
  const sum = (figure: keyof ChaosReport) =>
    all.reduce((before, run) => before + Number(run[figure]), 0);
  return {
    ok: all.every(({ ok }) => ok),
    seed: options.seed,
    rounds: sum('rounds'),
    kills: sum('kills'),
    pauses: sum('pauses'),
    outages: sum('outages'),
    resets: sum('resets'),
    accepted: sum('accepted'),
    committed: sum('committed'),
    lost: sum('lost'),
    duplicated: sum('duplicated'),
    counterErrors: sum('counterErrors'),
    deadLetters: sum('deadLetters'),
    attemptsBurned: sum('attemptsBurned'),
    recoverySeconds: {
      median: Math.max(...all.map((run) => run.recoverySeconds.median)),
      max: Math.max(...all.map((run) => run.recoverySeconds.max)),
    },
  };
}
