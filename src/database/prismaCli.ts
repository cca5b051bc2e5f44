import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** The package's own folder, whether this file runs from `src/` or from `dist/`. */
const PACKAGE_ROOT = fileURLToPath(new URL('../../', import.meta.url));

export interface PrismaRun {
  succeeded: boolean;
  /** All that it printed. */
  output: string;
}

/**
 * Runs Prisma's command line on the package's own schema and migrations.
 *
 * @param onOutput - told each line as it is printed
 * It is not to be ended in between: what it does is done by halves then.
 */
export async function runPrisma(
  args: readonly string[],
  databaseUrl: string,
  onOutput: (line: string) => void,
): Promise<PrismaRun> {
  const cli = createRequire(import.meta.url).resolve('prisma/build/index.js');
  const child = spawn(process.execPath, [cli, ...args], {
    cwd: PACKAGE_ROOT,
    env: {
      ...process.env,
      DATABASE_URL: databaseUrl,
      NO_COLOR: '1',
      CHECKPOINT_DISABLE: '1', // no look for news of Prisma
      PRISMA_HIDE_UPDATE_MESSAGE: '1',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    // In a process group of its own: Ctrl-C would end it in the middle of a migration, which then
    // counts as failed. What it has begun takes moments, and a stop waits for it.
    detached: true,
  });
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line);
      if (line.trim() !== '') onOutput(line);
    });
  }
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ succeeded: code === 0, output: lines.join('\n') }));
  });
}
