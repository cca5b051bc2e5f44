// @ts-check
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

import { bindMigrationAwareSqlAdapterFactory } from '@prisma/driver-adapter-utils';

import { AdapterFactory } from './adapter.js';
import { createDatabase, databaseName, target } from './database.js';
import { UserFacingError } from './errors.js';
import { loadEngine, panicMessage } from './wasm.js';

/** Methods of the protocol that the WebAssembly engine has under the same name. */
const METHODS = new Set([
  'applyMigrations',
  'createMigration',
  'dbExecute',
  'debugPanic',
  'devDiagnostic',
  'diagnoseMigrationHistory',
  'diff',
  'ensureConnectionValidity',
  'evaluateDataLoss',
  'introspect',
  'markMigrationApplied',
  'markMigrationRolledBack',
  'reset',
  'schemaPush',
]);

/**
 * Answers JSON-RPC requests, one a line, until standard input ends.
 *
 * @param {{ url?: string, shadowDatabaseUrl?: string }} datasource
 * @param {string[]} [datamodels] - paths of schema files
 */
export async function serve(datasource, datamodels) {
  const session = new Session(datasource, datamodels);
  // Whoever asked is gone, so is the reader of the answer under way: never outlive it.
  process.stdin.once('end', () => process.exit(0));
  /** @type {unknown} */
  let underway;
  /** @param {any} error */
  const refuse = (error) => {
    const panicked = error instanceof WebAssembly.RuntimeError;
    send({ id: underway, error: rpcError(error) }, () => panicked && process.exit(1));
  };
  // A panic in what the engine awaits is thrown past the promise, which then stays open for ever.
  process.on('uncaughtException', refuse);
  for await (const line of createInterface({ input: process.stdin })) {
    const { id, method, params } = JSON.parse(line);
    if (method === undefined) continue; // the answer to our `print`
    underway = id;
    try {
      send({ id, result: await session.call(method, params ?? {}) });
    } catch (error) {
      refuse(error);
    }
  }
}

class Session {
  #datasource;
  #datamodels;
  /** @type {AdapterFactory | undefined} */
  #factory;
  /** @type {any} */
  #engine;

  /** @param {{ url?: string, shadowDatabaseUrl?: string }} datasource @param {string[]} [datamodels] */
  constructor(datasource, datamodels) {
    this.#datasource = datasource;
    this.#datamodels = datamodels;
  }

  /** @param {string} method @param {any} params @returns {Promise<unknown>} */
  async call(method, params) {
    if (method === 'createDatabase') {
      const database = target(params.datasource?.url ?? this.#datasource.url);
      await createDatabase(database);
      return { databaseName: databaseName(database) };
    }
    try {
      const engine = (this.#engine ??= await this.#start());
      if (method === 'getDatabaseVersion') return await engine.version();
      if (!METHODS.has(method))
        throw new UnknownMethod(`this schema engine has no method \`${method}\``);
      // This one is not given the factory of shadow databases, and takes what migrations make from
      // the engine's memory, where the replay of devDiagnostic leaves it.
      if (method === 'evaluateDataLoss') await engine.devDiagnostic(params);
      const result = await engine[method](params);
      if (method !== 'diff') return result ?? {};
      // The binary engine prints the difference itself, through the command line.
      if (result.stdout) send({ id: -1, method: 'print', params: { content: result.stdout } });
      return { exitCode: result.exitCode };
    } catch (error) {
      throw this.#explain(error, params);
    }
  }

  async #start() {
    const { url, shadowDatabaseUrl } = this.#datasource;
    this.#factory = new AdapterFactory(
      target(url),
      shadowDatabaseUrl ? target(shadowDatabaseUrl) : undefined,
    );
    const { SchemaEngine } = await loadEngine();
    return SchemaEngine.new(
      // An empty list would make it panic.
      { datamodels: this.#datamodels?.map((path) => [path, readFileSync(path, 'utf8')]) },
      (/** @type {string} */ log) => process.stderr.write(`${log.trim()}\n`),
      bindMigrationAwareSqlAdapterFactory(this.#factory),
    );
  }

  /** Puts in place of an error without a code what is known better here. @param {any} error @param {any} params */
  #explain(error, params) {
    const fault = this.#factory?.fault;
    if (this.#factory) this.#factory.fault = undefined;
    if (error.code || !fault) return error;
    if (!fault.script) return fault.error;
    const failed = params.migrationsList?.migrationDirectories.find(
      (/** @type {any} */ directory) => directory.migrationFile.content.value === fault.script,
    );
    return failed ? migrationError(failed.path, fault.error) : error;
  }
}

class UnknownMethod extends Error {}

/** @param {string} name @param {any} error */
function migrationError(name, error) {
  return new UserFacingError(
    'P3018',
    `A migration failed to apply. New migrations cannot be applied before the error is recovered from. Read more about how to resolve migration issues in a production database: https://pris.ly/d/migrate-resolve

Migration name: ${name}

Database error code: ${error.code}

Database error:
${error.severity}: ${error.message}${error.detail ? `\nDETAIL: ${error.detail}` : ''}${error.hint ? `\nHINT: ${error.hint}` : ''}`,
  );
}

/** @param {any} error */
function rpcError(error) {
  if (error instanceof UnknownMethod) return { code: -32601, message: error.message };
  const message =
    error instanceof WebAssembly.RuntimeError
      ? `The schema engine panicked: ${panicMessage || error.message}`
      : error.message;
  return {
    code: 4466,
    message: 'An error happened. Check the data field for details.',
    data: { is_panic: false, message, error_code: error.code },
  };
}

/** @param {object} message @param {() => void} [sent] */
function send(message, sent) {
  process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`, sent);
}
