import { randomInt } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { constants } from 'node:os';

import { Command } from 'commander';

import { wholeNumber } from '../command.ts';
import { backends, queueOption, type QueueChoice } from '../queues.ts';
import { chaos, type ChaosReport } from './run.ts';

interface Options {
  rounds: number;
  seed: number;
  queue: QueueChoice;
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
  .addOption(queueOption())
  .option('--report <file>', 'write the outcome as JSON to this file')
  .addHelpText(
    'after',
    '\nExit codes: 0 nothing was lost, doubled or miscounted, no attempt was burned, and events flowed again within ' +
      '5 s of each fault (10 s where a spool was full); 1 otherwise.',
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
  const { recoverySeconds, fullSpoolSeconds, ...figures } = report;
  console.table({
    ...figures,
    recoverySeconds: Object.values(recoverySeconds).join(' / '),
    fullSpoolSeconds: Object.values(fullSpoolSeconds).join(' / '),
  });
  runs.push(report);
}
const report = { ...total(runs), runs };
if (options.report) writeFileSync(options.report, `${JSON.stringify(report, null, 2)}\n`);
process.exit(report.ok ? 0 : 1);

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
    recoverySeconds: worst(all.map((run) => run.recoverySeconds)),
    fullSpoolSeconds: worst(all.map((run) => run.fullSpoolSeconds)),
  };
}

function worst(spreads: readonly { median: number; max: number }[]) {
  return {
    median: Math.max(...spreads.map(({ median }) => median)),
    max: Math.max(...spreads.map(({ max }) => max)),
  };
}
