import { readFileSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

import { EmbeddedServerError } from '../errors.ts';

/** A program ready to be spawned. */
export interface Command {
  file: string;
  args: string[];
  credentials?: Credentials;
  /** What is unusual about it, for the log. */
  note?: string;
}

export interface Credentials {
  uid: number;
  gid: number;
}

/**
 * Who PostgreSQL, which refuses to run as root, shall run as: `undefined` (the present user)
 * unless that is root; then the owner of `dataDir`, or else the user `postgres`, or `nobody`.
 */
export function serverAccount(dataDir: string): Credentials | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const owner = statSync(dataDir, { throwIfNoEntry: false });
  if (owner && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid };
  const account = lookUp('postgres') ?? lookUp('nobody');
  if (account) return account;
  throw new EmbeddedServerError(
    'PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as. ' +
      'Run as an ordinary user, or set DATABASE_URL.',
  );
}

function lookUp(user: string): Credentials | undefined {
  const entry = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((line) => line.startsWith(`${user}:`));
  const [, , uid, gid] = entry?.split(':').map(Number) ?? [];
  // macOS writes the ids of `nobody` as -2.
  return uid !== undefined && gid !== undefined ? { uid: uid >>> 0, gid: gid >>> 0 } : undefined;
}

/**
 * Prepares `file args…` to run as `account`, who must be able to reach every one of `places`.
 * Where a folder on the way is closed to that account (a project below a root's home of mode
 * 700, say), the program keeps from root the one capability that passes closed folders.
 */
export function runAs(
  account: Credentials | undefined,
  file: string,
  args: string[],
  places: string[],
): Command {
  if (!account) return { file, args };
  const closed = [file, ...places].map((place) => closedFolder(account, place)).find(Boolean);
  if (!closed) return { file, args, credentials: account };
  const capability = passingCapability();
  const setpriv = ['/usr/bin/setpriv', '/bin/setpriv'].find((path) =>
    statSync(path, { throwIfNoEntry: false }),
  );
  if (!capability || !setpriv) {
    throw new EmbeddedServerError(
      `PostgreSQL does not run as root, and the user ${account.uid} that it would run as may not enter ${closed}. ` +
        'Open that folder (chmod o+x), set ANNALS_DATA_DIR to a folder elsewhere, run as an ordinary user, or set DATABASE_URL.',
    );
  }
  return {
    file: setpriv,
    args: [
      `--reuid=${account.uid}`,
      `--regid=${account.gid}`,
      '--clear-groups',
      `--inh-caps=+${capability}`,
      `--ambient-caps=+${capability}`,
      // Or access(2), by which PostgreSQL looks for its own programs, would disregard it.
      '--securebits=+no_setuid_fixup',
      '--',
      file,
      ...args,
    ],
    note: `runs as user ${account.uid} with root's capability ${capability}, since ${closed} is closed to that user`,
  };
}

/** The nearest folder above `place` that `account` may not enter. */
function closedFolder({ uid, gid }: Credentials, place: string): string | undefined {
  for (let folder = dirname(place); ; folder = dirname(folder)) {
    const stat = statSync(folder);
    const bit = stat.uid === uid ? 0o100 : stat.gid === gid ? 0o010 : 0o001;
    if (!(stat.mode & bit)) return folder;
    if (folder === dirname(folder)) return undefined;
  }
}

/** Of the two capabilities that pass closed folders the lesser that root has here, as in a container it may not. */
function passingCapability(): string | undefined {
  let status: string;
  try {
    status = readFileSync('/proc/self/status', 'utf8');
  } catch {
    return undefined; // not Linux
  }
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  if (effective & (1n << 2n)) return 'dac_read_search';
  if (effective & (1n << 1n)) return 'dac_override';
  return undefined;
}
