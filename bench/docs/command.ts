import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';

import type { Command } from 'commander';

import { plot, PLOT_NAMES } from './plots.ts';
import { withTables } from './tables.ts';

const PAGES = ['performance', 'operations'];
const DOCS = new URL('../../docs/', import.meta.url);
const PLOTS = new URL('plots/', DOCS);

export function addDocs(program: Command): void {
  program
    .command('docs')
    .description('Writes the tables and plots of docs/ from the runs in bench/results/')
    .action(() => {
      for (const name of PAGES) {
        const page = new URL(`${name}.md`, DOCS);
        writeFileSync(page, withTables(readFileSync(page, 'utf8')));
      }
      mkdirSync(PLOTS, { recursive: true });
      for (const name of PLOT_NAMES) writeFileSync(new URL(`${name}.svg`, PLOTS), plot(name));
      console.log(`docs/{${PAGES.join(',')}}.md, docs/plots/{${PLOT_NAMES.join(',')}}.svg`);
    });
}
