import { randomInt } from 'node:crypto';
import { writeFileSync } from 'node:fs';

import { Command } from 'commander';

import type { QueueLocation } from '../../src/queues/backend.ts';
import { wholeNumber } from '../command.ts';
import { onOwnGround } from '../ground.ts';
import { fuzz, type FuzzReport } from './run.ts';

await new Command('fuzz')
  .description(
    'Puts random and mutated jobs on the queues; each must end as rows or as a dead letter',
  )
  .option('--payloads <n>', 'jobs for each kind of queue', wholeNumber, 100_000)
  .option('--seed <n>', 'repeats a run', wholeNumber, randomInt(1, 2 ** 31))
  .option('--report <file>', 'write the figures as JSON to this file')
  .action(
    async ({
      payloads,
      seed,
      report: file,
    }: {
      payloads: number;
      seed: number;
      report?: string;
    }) => {
      console.log(`seed ${seed}`);
      const reports = await onOwnGround(async ({ databaseUrl, queue }) => {
        const places: QueueLocation[] = [{ kind: 'postgres', url: databaseUrl, prefix: 'fuzz' }];
        if (queue.kind === 'redis') places.unshift(queue);
        const done: Record<string, FuzzReport> = {};
        for (const [index, place] of places.entries()) {
          const onProgress = (count: number) => {
            if (count % 10_000 === 0) console.log(`${place.kind}: ${count} payloads`);
          };
          done[place.kind] = await fuzz({
            databaseUrl,
            queue: place,
            payloads,
            seed: seed + index,
            onProgress,
          });
        }
        return done;
      });
      console.table(
        Object.fromEntries(
          Object.entries(reports).map(([kind, { lost, ...figures }]) => [
            kind,
            { ...figures, lost: lost.length },
          ]),
        ),
      );
      for (const { lost } of Object.values(reports)) console.log(lost.slice(0, 20));
      const ok = Object.values(reports).every((each) => each.ok);
      if (file)
        writeFileSync(file, `${JSON.stringify({ ok, seed, payloads, ...reports }, null, 2)}\n`);
      process.exitCode = ok ? 0 : 1;
    },
  )
  .parseAsync();
process.exit();
