import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';

import { EmbeddedServerError } from '../errors.ts';
import { runAs, serverAccount } from './account.ts';
import type { PostgresBinaries } from './binaries.ts';
import { SERVER_ENV } from './process.ts';

/** The superuser of every cluster, and its only user. */
export const SUPERUSER = 'postgres';

/**
 * Makes a cluster in `dataDir` unless there is one of this major version. A kill in the middle
 * leaves `dataDir` untouched: the work is done beside it and renamed into place.
 */
export async function initCluster(
  binaries: PostgresBinaries,
  dataDir: string,
  password: string,
): Promise<void> {
  const major = /^\d+/.exec(binaries.version)?.[0] ?? '';
  if (existsSync(dataDir) && readdirSync(dataDir).length > 0) return checkCluster(dataDir, major);

  const draft = `${dataDir}.init-${randomBytes(4).toString('hex')}`;
  const passwordFile = join(draft, 'password');
  mkdirSync(draft, { recursive: true, mode: 0o700 });
  try {
    const account = serverAccount(dirname(dataDir));
    const cluster = join(draft, 'cluster');
    writeFileSync(passwordFile, password, { mode: 0o600 });
    if (account)
      for (const path of [draft, passwordFile]) chownSync(path, account.uid, account.gid);
    // Characters beyond ASCII change case by Unicode's rules, on every machine the same.
    const locale =
      Number(major) >= 17 ? ['--locale-provider=builtin', '--builtin-locale=C.UTF-8'] : [];
    const { file, args, credentials } = runAs(
      account,
      binaries.initdb,
      [
        `--pgdata=${cluster}`,
        `--username=${SUPERUSER}`,
        `--pwfile=${passwordFile}`,
        '--auth=scram-sha-256',
        '--encoding=UTF8',
        '--locale=C',
        ...locale,
      ],
      [draft],
    );
    await promisify(execFile)(file, args, {
      cwd: '/',
      timeout: 60_000,
      env: SERVER_ENV,
      ...credentials,
    });
    renameSync(cluster, dataDir);
  } catch (cause) {
    const { stderr, message } = cause as Error & { stderr?: string };
    throw new EmbeddedServerError(
      `a PostgreSQL cluster could not be made in ${dataDir}: ${stderr?.trim() || message}`,
      { cause },
    );
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

function checkCluster(dataDir: string, major: string): void {
  let found: string;
  try {
    found = readFileSync(join(dataDir, 'PG_VERSION'), 'utf8').trim();
  } catch (cause) {
    throw new EmbeddedServerError(
      `${dataDir} is not empty and holds no PostgreSQL cluster. Move it away, or set ANNALS_DATA_DIR to another folder.`,
      { cause },
    );
  }
  if (found !== major) {
    throw new EmbeddedServerError(
      `${dataDir} holds data of PostgreSQL ${found}, and the embedded PostgreSQL is ${major}. ` +
        `Set ANNALS_DATA_DIR to a new folder; to take the data along, run the version of Annals that made it, dump with pg_dump, and restore here.`,
    );
  }
}

/** Removes what a kill in the middle of `initCluster` left; nobody else may be making one. */
export function removeDrafts(dataDir: string): void {
  const folder = dirname(dataDir);
  for (const name of readdirSync(folder)) {
    if (name.startsWith(`${basename(dataDir)}.init-`))
      rmSync(join(folder, name), { recursive: true });
  }
}
