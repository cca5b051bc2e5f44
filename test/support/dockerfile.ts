import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { ROOT } from './process.ts';

export interface Instruction {
  /** In capitals, such as `COPY`. */
  name: string;
  rest: string;
}

/** The stages of the project's Dockerfile, from `FROM` to `FROM`; what is before the first is left out. */
export function readStages(): Instruction[][] {
  const text = readFileSync(join(ROOT, 'Dockerfile'), 'utf8').replace(/\\\n/g, ' ');
  const stages: Instruction[][] = [];
  for (const line of text.split('\n')) {
    if (!/^[A-Z]/.test(line)) continue;
    const [name = '', ...words] = line.split(/\s+/);
    if (name === 'FROM') stages.push([]);
    stages.at(-1)?.push({ name, rest: words.join(' ') });
  }
  return stages;
}

/** What an instruction in exec form holds: words, and no shell. */
export function execForm(stage: Instruction[], name: string): string[] {
  const { rest = '' } = stage.findLast((each) => each.name === name) ?? {};
  return JSON.parse(rest.slice(rest.indexOf('['))) as string[];
}

/**
 * Does in plain folders what the Dockerfile says: the same files, the same commands. Only `npm ci`
 * is a copy of what it has fetched for this checkout, and folders outside of the working directory
 * are the caller's to make.
 *
 * @returns the folder that is the final stage's working directory
 */
export function buildImage(folder: string): string {
  const [build = [], final = []] = readStages();
  const context = join(folder, 'context');
  for (const allowed of readFileSync(join(ROOT, '.dockerignore'), 'utf8').matchAll(/^!(.+)$/gm)) {
    cpSync(join(ROOT, allowed[1]!), join(context, allowed[1]!), {
      recursive: true,
      filter: (path) => !/\/(node_modules|src\/generated)$/.test(path),
    });
  }
  const source = runStage(build, folder, context);
  return runStage(final, folder, source);
}

/** Makes a stage in a folder of its own; `from` is where its files come from. */
function runStage(stage: Instruction[], folder: string, from: string): string {
  let cwd = folder;
  for (const { name, rest } of stage) {
    if (name === 'WORKDIR') mkdirSync((cwd = join(folder, rest)), { recursive: true });
    else if (name === 'COPY') copy(rest, from, cwd);
    else if (name === 'RUN' && rest.startsWith('npm ci')) copyModules(cwd);
    else if (name === 'RUN' && !rest.includes(' /')) {
      execFileSync('sh', ['-c', rest], { cwd, stdio: 'pipe' });
    }
  }
  return cwd;
}

function copy(rest: string, from: string, cwd: string): void {
  const words = rest.split(' ').filter((word) => !word.startsWith('--'));
  const to = words.pop() ?? '.';
  const names = words.map((word) => word.replace(/^\/src\//, ''));
  for (const name of names[0] === '.' ? readdirSync(from) : names) {
    linkInto(join(from, name), join(cwd, to === name ? '.' : to));
  }
}

/** What was installed for this checkout. */
function copyModules(cwd: string): void {
  linkInto(join(ROOT, 'node_modules'), cwd);
  rmSync(join(cwd, 'node_modules/.package-lock.json'), { force: true }); // npm writes to it
}

/** Links rather than copies where the file system can: it is half a gigabyte. */
function linkInto(path: string, folder: string): void {
  try {
    execFileSync('cp', ['-alf', path, folder], { stdio: 'pipe' });
  } catch {
    execFileSync('cp', ['-af', path, folder], { stdio: 'pipe' });
  }
}
