import { readdirSync, readFileSync } from 'node:fs';

import { describe, expect, it } from 'vitest';

import { plot, PLOT_NAMES } from '../bench/docs/plots.ts';
import { TABLE_NAMES, withTables } from '../bench/docs/tables.ts';

const path = (name: string) => new URL(`../${name}`, import.meta.url);
const read = (name: string) => readFileSync(path(name), 'utf8');

// `npm run bench -- docs` writes what these compare.
describe('the docs of performance', () => {
  const page = read('docs/performance.md');

  it.each(['performance', 'operations'])('docs/%s.md has what the kept runs wrote', (name) => {
    const text = read(`docs/${name}.md`);
    expect(text).toContain('<!-- table: ');
    expect(text).toBe(withTables(text));
  });

  it('has every table', () => {
    for (const name of TABLE_NAMES) expect(page).toContain(`<!-- table: ${name} -->`);
  });

  it.each(PLOT_NAMES)('shows the plot %s of them', (name) => {
    expect(read(`docs/plots/${name}.svg`)).toBe(plot(name));
    expect(page).toContain(`(plots/${name}.svg)`);
  });
});

it('the kept runs are whole', () => {
  for (const file of readdirSync(path('bench/results'))) {
    const { ground, contestants } = JSON.parse(read(`bench/results/${file}`)) as {
      ground: { machine: object; postgres: object };
      contestants: { verified?: boolean }[];
    };
    expect(ground, file).toMatchObject({ machine: { cores: expect.any(Number) } });
    for (const { verified } of contestants) expect(verified ?? true, file).toBe(true);
  }
});
