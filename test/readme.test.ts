import { readdirSync, readFileSync, writeFileSync } from 'node:fs';

import { expect, it } from 'vitest';
import { z } from 'zod';

import { SETTINGS } from '../src/config.ts';
import { PRODUCER_LEDGER } from '../src/queues/envelope.ts';
import { EVENT_KINDS, EVENT_SCHEMAS } from '../src/queues/events.ts';

// `UPDATE_DOCS=1 npm test -- test/readme.test.ts` writes what these tests compare.
const update = process.env['UPDATE_DOCS'] === '1';
const path = (name: string) => new URL(`../${name}`, import.meta.url);

it('README lists every setting as src/config.ts has it', () => {
  const rows = Object.entries(SETTINGS).map(([name, { schema, about }]) => {
    const initial = schema.safeParse(undefined).data;
    return `| \`${name}\` | ${initial === undefined ? '' : `\`${initial}\``} | ${about.replaceAll('|', '\\|')} |`;
  });
  const table = ['| variable | default | meaning |', '| --- | --- | --- |', ...rows].join('\n');
  const readme = readFileSync(path('README.md'), 'utf8');
  const marked = /(<!-- settings: [^>]*-->\n)[\s\S]*?(<!-- \/settings -->)/;
  const expected = readme.replace(
    marked,
    (_, begin: string, end: string) => `${begin}\n${table}\n\n${end}`,
  );
  if (update) writeFileSync(path('README.md'), expected);
  else expect(readme).toBe(expected);
});

/** Variables of the docs that are no settings of ours. */
const READ_BY_OTHERS = {
  OTEL_SERVICE_NAME: 'Read by OpenTelemetry: the name of the service in traces.',
  OTEL_RESOURCE_ATTRIBUTES: 'Read by OpenTelemetry: what traces say of the process, as key=value,…',
  OTEL_EXPORTER_OTLP_HEADERS: 'Read by OpenTelemetry: what the receiver asks for, as key=value,…',
  OTEL_EXPORTER_OTLP_TIMEOUT:
    'Read by OpenTelemetry: milliseconds that the receiver has to answer.',
  OTEL_EXPORTER_OTLP_COMPRESSION: 'Read by OpenTelemetry: gzip, or none.',
  OTEL_EXPORTER_OTLP_CERTIFICATE: "Read by OpenTelemetry: file of the receiver's certificate.",
  SHADOW_DATABASE_URL:
    'Read by prisma.config.ts: a database that may be wiped, where the role cannot make one.',
  PRISMA_SCHEMA_ENGINE_BINARY: 'Read by Prisma: its schema engine, in place of the one in tools/.',
  POSTGRES_PASSWORD: 'Read by docker-compose.yml: letters and digits, as the two below.',
  VALKEY_PASSWORD: 'Read by docker-compose.yml.',
  BOARD_PASSWORD: 'Read by docker-compose.yml.',
};

/** Names of the docs that look like variables, and are constants of the source. */
const NO_VARIABLES = ['EVENT_SCHEMAS'];

it('.env.example names every setting, what others read, and nothing else', () => {
  const settings = Object.entries(SETTINGS).map(
    ([name, { schema, about }]) => [name, about, schema.safeParse(undefined).data ?? ''] as const,
  );
  const others = Object.entries(READ_BY_OTHERS).map(([name, about]) => [name, about, ''] as const);
  const example = [...settings, ...others]
    .map(([name, about, initial]) => `# ${about.replaceAll('`', '')}\n#${name}=${initial}\n`)
    .join('\n');
  if (update) writeFileSync(path('.env.example'), example);
  else expect(readFileSync(path('.env.example'), 'utf8')).toBe(example);
});

it('every variable of the docs is in .env.example, and the reverse', () => {
  const pages = ['README.md', ...readdirSync(path('docs')).map((name) => `docs/${name}`)];
  const docs = [...pages.filter((page) => page.endsWith('.md')), 'docker-compose.yml'].map((page) =>
    readFileSync(path(page), 'utf8'),
  );
  const named = docs
    .flatMap((text) => [
      ...(text.match(/\b(?:[A-Z]+_PASSWORD|(?:ANNALS|OTEL|DATABASE|REDIS)_[A-Z_]+)\b/g) ?? []),
      ...(text.match(/`[^`\n]+`/g) ?? []).flatMap(
        (code) => code.match(/\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b/g) ?? [],
      ),
    ])
    .filter((name) => !NO_VARIABLES.includes(name));
  const example = readFileSync(path('.env.example'), 'utf8').matchAll(/^#([A-Z_]+)=/gm);
  expect([...new Set(named)].toSorted()).toEqual(
    Array.from(example, ([, name = '']) => name).toSorted(),
  );
});

it('docs/events.schema.json is the JSON Schema of an envelope of each kind', () => {
  const envelopes = EVENT_KINDS.map((kind) => [
    kind,
    {
      type: 'object',
      required: ['v', 'events'],
      properties: {
        v: { const: 1 },
        producer: z.toJSONSchema(PRODUCER_LEDGER, { io: 'input', target: 'draft-2020-12' }),
        events: {
          type: 'array',
          items: z.toJSONSchema(EVENT_SCHEMAS[kind], { io: 'input', target: 'draft-2020-12' }),
        },
      },
    },
  ]);
  const schema = `${JSON.stringify({ $schema: 'https://json-schema.org/draft/2020-12/schema', title: "The data of a job, by its queue's name", $defs: Object.fromEntries(envelopes) }, null, 2)}\n`;
  if (update) writeFileSync(path('docs/events.schema.json'), schema);
  else expect(readFileSync(path('docs/events.schema.json'), 'utf8')).toBe(schema);
});
