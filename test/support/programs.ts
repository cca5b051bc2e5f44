import { accessSync, constants, realpathSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';

import {
  embeddedPostgresBinaries,
  type PostgresBinaries,
  postgresBinaries,
} from '../../src/embedded/binaries.ts';

/** Full path of a program on the PATH. */
export function onPath(program: string): string | undefined {
  return (process.env['PATH'] ?? '')
    .split(delimiter)
    .map((folder) => join(folder, program))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/**
 * The PostgreSQL to test with: that of the PATH, so that CI can try several versions, else (and
 * with `ANNALS_TEST_POSTGRES=embedded`) the one that Annals embeds.
 */
export function testBinaries(): PostgresBinaries {
  const initdb = onPath('initdb');
  // A link on the PATH leads to the folder that has `postgres` and its libraries beside it.
  return initdb && process.env['ANNALS_TEST_POSTGRES'] !== 'embedded'
    ? postgresBinaries(dirname(realpathSync(initdb)))
    : embeddedPostgresBinaries();
}
