import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  rmSync,
} from 'node:fs';
import { connect, type Server, type Socket } from 'node:net';
import { join } from 'node:path';

import { EmbeddedServerError } from '../errors.ts';

/*
 * The supervisor's socket is its lock as well: the kernel lets go of it however the supervisor
 * ends, and a connection tells at once whether somebody lives behind it.
 *
 * Unlinking a dead socket and binding its name again would be a race (of two that saw it dead
 * the later may unlink what the earlier has just bound), so a name is never used twice: sockets
 * are numbered, and the highest number counts.
 *
 *  - A candidate that finds the highest one, n, dead listens under a name of its own and then
 *    links that to n + 1. Linking fails if the name exists, so of all candidates for n + 1 one
 *    wins; and whoever sees the name sees a socket that listens already.
 *  - A dead socket stays as the record of its number, and a successor removes only what is below
 *    its predecessor. A candidate who slept since it saw n therefore either fails to link n + 1,
 *    or finds a higher number when it looks again after linking, and withdraws.
 */
const NAME = /^supervisor\.(\d+)\.sock$/;

const socketPath = (folder: string, number: number) => join(folder, `supervisor.${number}.sock`);

/** Bytes of a socket's path at most: 104 on macOS and 108 on Linux, less a name. */
const LONGEST_FOLDER = 70;

/** The folder for the socket of `dataDir`: that itself unless its path is too long for a socket. */
export function socketFolder(dataDir: string): string {
  if (Buffer.byteLength(dataDir) <= LONGEST_FOLDER) return dataDir;
  // Not the system's idea of a temporary folder: that differs between two terminals with
  // different TMPDIR, which must meet here.
  const folder = `/tmp/annals-${createHash('sha256').update(dataDir).digest('hex').slice(0, 16)}`;
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const owner = lstatSync(dataDir);
  // What root makes in somebody's name is theirs, so that they find it usable when they come.
  if (process.getuid?.() === 0 && lstatSync(folder).uid === 0)
    lchownSync(folder, owner.uid, owner.gid);
  const { uid, mode } = lstatSync(folder);
  if (uid !== owner.uid || mode & 0o077) {
    throw new EmbeddedServerError(
      `${folder} does not belong to the owner of ${dataDir} alone. Remove it, or choose a shorter path than ${dataDir} (ANNALS_DATA_DIR, ANNALS_SPOOL_DIR).`,
    );
  }
  return folder;
}

function newest(folder: string): number {
  return Math.max(0, ...readdirSync(folder).map((name) => Number(NAME.exec(name)?.[1] ?? 0)));
}

/** Of a socket whose process is gone, or goes while we connect (ECONNRESET). */
const GONE: ReadonlySet<string | undefined> = new Set(['ECONNREFUSED', 'ECONNRESET', 'ENOENT']);

/**
 * A connection to the supervisor that serves `folder`, or `undefined` when none does.
 *
 * @throws {EmbeddedServerError} when it belongs to another user
 */
export async function connectToSupervisor(folder: string): Promise<Socket | undefined> {
  const number = newest(folder);
  if (number === 0) return undefined;
  const path = socketPath(folder, number);
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(socket));
    socket.once('error', (cause: NodeJS.ErrnoException) => {
      if (GONE.has(cause.code)) resolve(undefined);
      else
        reject(
          new EmbeddedServerError(`${path} does not take a connection: ${cause.message}`, {
            cause,
          }),
        );
    });
  });
}

/** Makes `server` the one that serves `folder`, unless another does; says whether it is now. */
export async function claimSocket(folder: string, server: Server): Promise<boolean> {
  const draft = join(folder, `draft-${randomBytes(4).toString('hex')}.sock`);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(draft, resolve);
  });
  chmodSync(draft, 0o600);
  try {
    for (;;) {
      const predecessor = newest(folder);
      const alive = await connectToSupervisor(folder);
      if (alive) {
        alive.destroy();
        server.close();
        return false;
      }
      const number = predecessor + 1;
      try {
        linkSync(draft, socketPath(folder, number));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EEXIST') continue;
        throw error;
      }
      if (newest(folder) === number) {
        removeBelow(folder, predecessor);
        return true;
      }
      rmSync(socketPath(folder, number));
    }
  } finally {
    rmSync(draft, { force: true });
  }
}

function removeBelow(folder: string, number: number): void {
  for (const name of readdirSync(folder)) {
    const found = NAME.exec(name);
    if (found && Number(found[1]) < number) rmSync(join(folder, name), { force: true });
  }
}
