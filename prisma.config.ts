import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

import { defineConfig } from 'prisma/config';

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

if (existsSync(here('.env'))) process.loadEnvFile(here('.env'));

const env = process.env;
const databaseUrl = env['DATABASE_URL'] || (await embeddedDatabaseUrl());

// Where the user names no schema engine and Prisma has fetched none, the project's own saves the
// download. Windows cannot start a script as a program: there Prisma fetches its engine.
const isNamed = env['PRISMA_SCHEMA_ENGINE_BINARY'] || env['PRISMA_MIGRATION_ENGINE_BINARY'];
if (!isNamed && !isFetched() && process.platform !== 'win32') {
  env['PRISMA_SCHEMA_ENGINE_BINARY'] = here('tools/schema-engine/engine.js');
}

export default defineConfig({
  schema: 'prisma/schema.prisma',
  migrations: { path: 'prisma/migrations' },
  datasource: {
    url: databaseUrl,
    ...(env['SHADOW_DATABASE_URL'] && { shadowDatabaseUrl: env['SHADOW_DATABASE_URL'] }),
  },
});

/** Started for the commands that need a database, and stopped after them. */
async function embeddedDatabaseUrl(): Promise<string> {
  if (!['migrate', 'db', 'studio'].includes(process.argv[2] ?? '')) return '';
  const source = here('src/embedded/index.ts');
  const { databaseUrlForThisProcess } = (await import(
    existsSync(source) ? source : here('dist/embedded/index.js')
  )) as typeof import('./src/embedded/index.ts');
  return databaseUrlForThisProcess();
}

function isFetched(): boolean {
  const folder = dirname(createRequire(import.meta.url).resolve('@prisma/engines/package.json'));
  return readdirSync(folder).some((name) => name.startsWith('schema-engine-'));
}
