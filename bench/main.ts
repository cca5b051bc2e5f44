import { Command } from 'commander';

import { addBackfillBench } from './backfill/command.ts';
import { addDocs } from './docs/command.ts';
import { addEmitBench } from './emit/command.ts';
import { addGrowthBench } from './growth/command.ts';
import { addIngestBench } from './ingest/command.ts';
import { addLatencyBench } from './latency/command.ts';
import { addScaleBench } from './scale/command.ts';

// One command for each thing that is measured: `npm run bench -- backfill --rows 1000000`.
const program = new Command('bench').description('Measures Annals on servers of its own');
addBackfillBench(program);
addIngestBench(program);
addEmitBench(program);
addLatencyBench(program);
addGrowthBench(program);
addScaleBench(program);
addDocs(program);
await program.parseAsync();
process.exit();
