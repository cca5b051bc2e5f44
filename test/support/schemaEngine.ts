import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { run, type RunResult } from './process.ts';

const ENGINE = fileURLToPath(new URL('../../tools/schema-engine/engine.js', import.meta.url));
const FOLDER = new URL('../../prisma/migrations/', import.meta.url);

export interface Datasource {
  url: string;
  shadowDatabaseUrl?: string;
}

/** One of the engine's `cli` commands, as Prisma runs it. */
export const engineCommand = (name: string, url: string): Promise<RunResult> =>
  run(ENGINE, ['--datasource', JSON.stringify({ url }), 'cli', name]);

/** An engine that is running, as Prisma's command line talks to it. */
export class Engine {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #waiting = new Map<number, (answer: any) => void>();
  /** What it asked to be printed. */
  readonly printed: string[] = [];
  readonly ended: Promise<number | null>;

  constructor(datasource: Datasource) {
    this.#child = spawn(ENGINE, ['--datasource', JSON.stringify(datasource)]);
    this.#child.stderr.resume();
    this.ended = new Promise((resolve) => this.#child.once('exit', resolve));
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      const message = JSON.parse(line);
      if (message.method === 'print') {
        this.printed.push(message.params.content);
        this.#send({ id: message.id, result: {} });
      } else this.#waiting.get(message.id)?.(message);
    });
  }

  /** The whole answer, with a `result` or an `error`. */
  call(method: string, params: object = {}): Promise<any> {
    const id = this.#waiting.size + 1;
    const answer = new Promise((resolve) => this.#waiting.set(id, resolve));
    this.#send({ id, method, params });
    return answer;
  }

  /** Closes the engine's input, and resolves to its exit code. */
  close(): Promise<number | null> {
    this.#child.stdin.end();
    return this.ended;
  }

  #send(message: object) {
    this.#child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
  }
}

export const filters = { externalTables: [], externalEnums: [] };

/** The project's migrations, and `others` by name, as the engine takes them. */
export function migrationsList(others: Record<string, string> = {}) {
  const own = readdirSync(FOLDER, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => [name, readFileSync(new URL(`${name}/migration.sql`, FOLDER), 'utf8')]);
  return {
    baseDir: fileURLToPath(FOLDER),
    lockfile: {
      path: 'migration_lock.toml',
      content: readFileSync(new URL('migration_lock.toml', FOLDER), 'utf8'),
    },
    shadowDbInitScript: '',
    migrationDirectories: [...own, ...Object.entries(others)].map(([path, value]) => ({
      path,
      migrationFile: { path: 'migration.sql', content: { tag: 'ok', value } },
    })),
  };
}

/** `prisma/schema.prisma`, as the engine takes it. */
export const schema = () => ({
  files: [
    { path: 'schema.prisma', content: readFileSync(new URL('../schema.prisma', FOLDER), 'utf8') },
  ],
});

/** What separates a database from `prisma/schema.prisma`, in words. */
export async function drift(url: string): Promise<string> {
  const engine = new Engine({ url });
  const { result, error } = await engine.call('diff', {
    from: { tag: 'schemaDatasource', configDir: '.', ...schema() },
    to: { tag: 'schemaDatamodel', ...schema() },
    script: false,
    exitCode: true,
    filters,
  });
  await engine.close();
  if (error) throw new Error(error.data.message);
  return result.exitCode === 0 ? '' : engine.printed.join('');
}
