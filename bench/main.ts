import { Command } from 'commander';

import { addBackfillBench } from './backfill/command.ts';

// One command for each thing that is measured: `npm run bench -- backfill --rows 1000000`.
const program = new Command('bench').description('Measures Annals on servers of its own');
addBackfillBench(program);
await program.parseAsync();
process.exit();
