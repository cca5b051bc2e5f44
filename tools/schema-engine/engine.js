#!/usr/bin/env node
// @ts-check
// Prisma's schema engine without its download: see README.md beside this file.
import { parseArgs } from 'node:util';

import { canConnect, createDatabase, dropDatabase, target } from './database.js';
import { serve } from './rpc.js';
import { loadEngine } from './wasm.js';

const COMMANDS = {
  'can-connect-to-database': canConnect,
  'create-database': createDatabase,
  'drop-database': dropDatabase,
};

/** A line of the log that Prisma's command line reads. @param {string} level @param {object} fields */
function log(level, fields) {
  process.stderr.write(`${JSON.stringify({ level, fields, target: 'schema_engine::logger' })}\n`);
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      datamodels: { type: 'string', short: 'd', multiple: true },
      datasource: { type: 'string' },
      // Sent by the command line; of no use here.
      'enabled-preview-features': { type: 'string' },
      'extension-types': { type: 'string' },
      version: { type: 'boolean', short: 'V' },
    },
  });
  if (values.version) {
    console.log(`schema-engine-cli ${(await loadEngine()).version()}`);
    return;
  }
  const datasource = JSON.parse(values.datasource ?? '{}');
  if (positionals.length === 0) return serve(datasource, values.datamodels);

  const [group, name] = positionals;
  const command =
    group === 'cli' ? COMMANDS[/** @type {keyof typeof COMMANDS} */ (name)] : undefined;
  if (!command) throw new Error(`this schema engine has no command \`${positionals.join(' ')}\``);
  log('INFO', { message: `Starting schema engine CLI: ${name}` }); // the command line skips the first line
  await command(target(datasource.url));
}

main().then(
  () => process.exit(), // not waiting for the database: whoever closed our input is gone
  (error) => {
    log('ERROR', { message: error.message, error_code: error.code });
    process.exit(1);
  },
);
