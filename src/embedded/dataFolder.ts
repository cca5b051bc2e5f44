import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { EmbeddedServerError } from '../errors.ts';

/** The password of both servers: made once, and readable by the data folder's owner alone. */
export function loadPassword(dataDir: string): string {
  const file = join(dataDir, 'password');
  if (existsSync(file)) return readFileSync(file, 'utf8').trim();
  if (existsSync(join(dataDir, 'postgres/PG_VERSION'))) {
    throw new EmbeddedServerError(
      `${file} is gone, without which the data in ${join(dataDir, 'postgres')} cannot be opened. Put it back, or set ANNALS_DATA_DIR to a new folder.`,
    );
  }
  // The folder often lies in somebody's repository.
  writeFileSync(join(dataDir, '.gitignore'), '*\n');
  const made = randomBytes(24).toString('hex');
  writeFileSync(`${file}.new`, made, { mode: 0o600, flush: true });
  renameSync(`${file}.new`, file);
  return made;
}

/** Where the servers were last. */
export interface Ports {
  postgres?: number;
  redis?: number;
}

export function lastPorts(dataDir: string): Ports {
  try {
    return JSON.parse(readFileSync(join(dataDir, 'ports.json'), 'utf8')) as Ports;
  } catch {
    return {}; // only a wish
  }
}

export function rememberPorts(dataDir: string, ports: Ports): void {
  try {
    writeFileSync(join(dataDir, 'ports.json'), JSON.stringify({ ...lastPorts(dataDir), ...ports }));
  } catch {
    // the servers run all the same
  }
}

/** Keeps a log that has grown beyond 10 MiB once more, under another name. */
export function setAside(logFile: string): void {
  if ((statSync(logFile, { throwIfNoEntry: false })?.size ?? 0) > 10 * 1024 * 1024)
    renameSync(logFile, `${logFile}.old`);
}
