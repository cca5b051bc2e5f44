import { constants, readFileSync, type StatsFs } from 'node:fs';
import { access, stat, statfs } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';

import { checkExposure } from '../board/access.ts';
import type { Config } from '../config.ts';
import { straySpools } from '../producers/spool/strays.ts';
import { failed, ok, skipped, warning, type Patient, type Verdict } from './finding.ts';

const GIB = 1024 ** 3;

/** Free bytes below which nothing useful can be written. */
const LEAST_BYTES = 100 * 1024 ** 2;

const { engines } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
) as { engines: { node: string } };

export function checkNode(version = process.versions.node): Verdict {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [oldMajor = 0, oldMinor = 0] = engines.node
    .replace(/[^\d.]/g, '')
    .split('.')
    .map(Number);
  if (major > oldMajor || (major === oldMajor && minor >= oldMinor)) return ok(version);
  return failed(`${version} is older than ${engines.node}`, 'Install a newer Node.js.');
}

/** What each variable may hold is checked when it is read; here is what only shows together. */
export function checkConfiguration({ config, queue }: Patient): Verdict {
  if (config.REDIS_URL !== undefined && queue.kind === 'postgres') {
    return warning(
      'REDIS_URL is set, and ANNALS_QUEUE_BACKEND=postgres puts the queues elsewhere',
      'Unset the one that is not meant; producers and workers must agree.',
    );
  }
  if (config.ANNALS_LOG_LEVEL === 'silent') {
    return warning(
      'ANNALS_LOG_LEVEL=silent: outages and dead letters are told to nobody',
      'Use error or warn.',
    );
  }
  try {
    checkExposure(config);
  } catch (error) {
    return warning((error as Error).message, 'Until then the board refuses to start.');
  }
  return ok('every variable is as it should be');
}

/** The folder of the embedded servers. */
export async function checkDataFolder({ config, queue }: Patient): Promise<Verdict> {
  const isUsed =
    config.DATABASE_URL === undefined || (queue.kind === 'redis' && config.REDIS_URL === undefined);
  return isUsed ? checkFolder('ANNALS_DATA_DIR', config, GIB) : skipped('no embedded servers');
}

/** Where producers put events that the queue does not take. */
export const checkSpoolFolder = ({ config }: Patient): Promise<Verdict> =>
  checkFolder('ANNALS_SPOOL_DIR', config, config.ANNALS_SPOOL_MAX_BYTES);

/** What no producer looks for any more, since the address of the queues has changed. */
export async function checkStraySpools({ config, queue }: Patient): Promise<Verdict> {
  const strays = await straySpools(config, queue);
  if (strays.length === 0) return ok('nothing is left for other queues');
  const found = strays.map(
    ({ folder, destination, bytes }) => `${bytes} bytes for ${destination} in ${folder}`,
  );
  return warning(
    `events are left for other queues: ${found.join('; ')}`,
    'Run a producer to these queues. If they are no more, send the events to those of now: npx annals emit --spool FOLDER.',
  );
}

/** @param wanted - free bytes below which we warn */
async function checkFolder(
  setting: keyof Config & `ANNALS_${string}_DIR`,
  config: Config,
  wanted: number,
): Promise<Verdict> {
  const folder = resolve(config[setting]);
  let free: number;
  try {
    const there = await firstThatExists(folder);
    if (!(await stat(there)).isDirectory()) throw new Error(`${there} is not a folder`);
    await access(there, constants.W_OK | constants.X_OK);
    const { bavail, bsize }: StatsFs = await statfs(there);
    free = bavail * bsize;
  } catch (error) {
    return failed(
      `${folder} cannot be written: ${(error as Error).message}`,
      `Give its owner the right to, or set ${setting} to a folder on a disk that lasts.`,
    );
  }
  const found = `${inGib(free)} free for ${folder}`;
  const advice = `Free some space, or set ${setting} to a folder on another disk.`;
  if (free < LEAST_BYTES) return failed(found, advice);
  return free < wanted ? warning(`${found}, which may take ${inGib(wanted)}`, advice) : ok(found);
}

const inGib = (bytes: number) => `${(bytes / GIB).toFixed(1)} GiB`;

/** The folder is made when it is first needed: until then its parent is what counts. */
async function firstThatExists(path: string): Promise<string> {
  try {
    await access(path);
    return path;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || dirname(path) === path) throw error;
    return firstThatExists(dirname(path));
  }
}
