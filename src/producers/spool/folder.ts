import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { dirname, join } from 'node:path';

import { socketFolder } from '../../embedded/socket.ts';
import { SpoolError } from '../../errors.ts';
import { Segment } from './segment.ts';

/*
 * Whose segments are whose.
 *
 *     <root>/<producer>@<owner>/00000001.log
 *     <root>/destination                     (where its events go, for people)
 *     <root>/<end of owner's id>.sock        (elsewhere, if that path is too long for a socket)
 *
 * A producer writes into <itself>@<itself>. Segments are touched by nobody but the owner in their
 * folder's name, and an owner is alive as long as its socket takes connections: the kernel sees to
 * that, also while the process is stopped or its event loop is busy, and ends it with kill -9.
 *
 *  - An owner listens before any folder bears its name, so a folder whose owner does not answer is
 *    that of a dead one. Ids are never used again, so a dead owner stays dead.
 *  - Whoever finds it renames the folder to <producer>@<its own id>. A rename is atomic and its
 *    source is gone afterwards: of several adopters one succeeds, the others get ENOENT. From then
 *    on the folder is a live owner's again, and is adopted in the same way should that one die.
 *  - A socket appears under its name by a rename as well, when it listens already. One that refuses
 *    is therefore dead, and may be removed.
 */
const FOLDER = /^([0-9a-f-]{36})@([0-9a-f-]{36})$/;
const SEGMENT = /^(\d{8})\.log$/;
const SOCKET = /^[0-9a-f]{12}\.sock$/;
export const DESTINATION = 'destination';

/** A producer's place in the spool; everything on disk is made when it is first needed. */
export class SpoolFolder {
  readonly #root: string;
  readonly #id: string;
  readonly #destination: string;
  #server: Server | undefined;
  #sockets = '';
  #last = 0;
  /** Folders of dead producers whose segments were handed out. */
  readonly #adopted = new Set<string>();
  /** Bytes in folders of dead producers that were not wanted at the last look. */
  waitingBytes = 0;
  #isClosed = false;

  /**
   * @param root - the folder that all producers to the same queues share
   * @param id - UUID of this producer
   * @param destination - where its events go, in words
   */
  constructor(root: string, id: string, destination: string) {
    this.#root = root;
    this.#id = id;
    this.#destination = destination;
  }

  get #own(): string {
    return join(this.#root, `${this.#id}@${this.#id}`);
  }

  /** Begins the next segment. Synchronous, since the process may be about to end. */
  createSegment(): Segment {
    this.#claim();
    mkdirSync(this.#own, { recursive: true, mode: 0o700 });
    this.#last++;
    const name = `${String(this.#last).padStart(8, '0')}.log`;
    return Segment.create(join(this.#own, name), this.#id);
  }

  /** Has the names of new segments, and of their folders, on disk. */
  async sync(): Promise<void> {
    for (const path of this.#named()) {
      const folder = await open(path);
      try {
        await folder.sync();
      } finally {
        await folder.close();
      }
    }
  }

  /** The same at once. */
  syncSync(): void {
    for (const path of this.#named()) {
      const fd = openSync(path, 'r');
      fsyncSync(fd);
      closeSync(fd);
    }
  }

  /**
   * Takes over what dead producers left, if there is any; the segments of each come in order.
   *
   * @param isWanted - asked before each folder
   * @throws whatever the file system does
   */
  async *adopt(isWanted: () => boolean): AsyncGenerator<Segment> {
    let waitingBytes = 0;
    for (const name of namesIn(this.#root)) {
      if (this.#isClosed) break;
      const [, producerId, owner] = FOLDER.exec(name) ?? [];
      if (producerId === undefined || owner === undefined || producerId === this.#id) continue;
      this.#claim();
      const adopted = `${producerId}@${this.#id}`;
      // One that is ours already, but could not be read when it became so, is tried again.
      if (owner === this.#id ? this.#adopted.has(adopted) : await isAlive(this.#socketOf(owner)))
        continue;
      if (!isWanted()) {
        waitingBytes += bytesIn(join(this.#root, name));
        continue;
      }
      try {
        renameSync(join(this.#root, name), join(this.#root, adopted));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue; // another was faster
        throw error;
      }
      const segments = segmentsIn(join(this.#root, adopted), producerId);
      this.#adopted.add(adopted);
      yield* segments;
    }
    this.waitingBytes = waitingBytes;
    if (this.#server) await this.#removeDeadSockets();
  }

  /** Removes folders that became empty, and with `andLeave` lets go of what is left. */
  tidy(andLeave = false): void {
    for (const name of namesIn(this.#root)) {
      const [, producerId, owner] = FOLDER.exec(name) ?? [];
      if (owner !== this.#id || (producerId === this.#id && !andLeave)) continue;
      try {
        rmdirSync(join(this.#root, name));
      } catch {
        // not empty: it is adopted by the next producer
      }
    }
    if (!andLeave) return;
    this.#isClosed = true;
    if (!this.#server) return;
    this.#server.close();
    this.#server = undefined;
    rmSync(this.#socketOf(this.#id), { force: true });
  }

  #named(): string[] {
    return [this.#own, this.#root, dirname(this.#root)].filter((path) => existsSync(path));
  }

  #socketOf(owner: string): string {
    return join(this.#sockets, socketName(owner));
  }

  /** Makes this producer known to be alive. A local socket is bound within `listen`. */
  #claim(): void {
    // Whoever removes the whole folder removes the sign of life too.
    if (this.#server && existsSync(this.#socketOf(this.#id))) return;
    this.#server?.close();
    // Root's embedded servers run as another user, who must pass through the folder above.
    const mode = process.getuid?.() === 0 ? 0o711 : 0o700;
    mkdirSync(dirname(this.#root), { recursive: true, mode });
    mkdirSync(this.#root, { recursive: true, mode: 0o700 });
    this.#nameDestination();
    this.#sockets = socketFolder(realpathSync(this.#root));
    const server = createServer((socket) => socket.destroy());
    let fault: Error | undefined;
    server.on('error', (error) => (fault = error));
    const draft = join(this.#sockets, `${randomBytes(6).toString('hex')}.new`);
    server.listen({ path: draft, exclusive: true });
    if (!server.listening) {
      throw new SpoolError(`${draft} cannot be listened on${fault ? `: ${fault.message}` : ''}`);
    }
    server.unref();
    chmodSync(draft, 0o600);
    renameSync(draft, this.#socketOf(this.#id));
    this.#server = server;
  }

  #nameDestination(): void {
    try {
      const text = `${this.#destination}\n`;
      writeFileSync(join(this.#root, DESTINATION), text, { flag: 'wx', mode: 0o600 });
    } catch {
      // It is there already; or the disk is full, of which what matters will tell.
    }
  }

  async #removeDeadSockets(): Promise<void> {
    for (const name of namesIn(this.#sockets)) {
      const path = join(this.#sockets, name);
      if (SOCKET.test(name) && !(await isAlive(path))) rmSync(path, { force: true });
    }
  }
}

const socketName = (owner: string) => `${owner.slice(-12)}.sock`;

/** Only a refusal, or there being no socket at all, means that nobody is there. */
function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', ({ code }: NodeJS.ErrnoException) =>
      resolve(code !== 'ECONNREFUSED' && code !== 'ENOENT'),
    );
  });
}

function segmentsIn(folder: string, producerId: string): Segment[] {
  return namesIn(folder)
    .filter((name) => SEGMENT.test(name))
    .toSorted()
    .map((name) => {
      const path = join(folder, name);
      return Segment.adopt(path, producerId, statSync(path).size);
    });
}

/** Bytes of a folder's segments. One that somebody else just adopts has none. */
function bytesIn(folder: string): number {
  return namesIn(folder)
    .filter((name) => SEGMENT.test(name))
    .map((name) => statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0)
    .reduce((sum, bytes) => sum + bytes, 0);
}

/** Bytes that dead producers left in a folder, for whoever only wants to know. */
export async function leftIn(root: string): Promise<number> {
  let bytes = 0;
  for (const name of namesIn(root)) {
    const [, , owner] = FOLDER.exec(name) ?? [];
    const held = owner === undefined ? 0 : bytesIn(join(root, name));
    if (owner === undefined || held === 0) continue;
    const socket = join(socketFolder(realpathSync(root)), socketName(owner));
    if (!(await isAlive(socket))) bytes += held;
  }
  return bytes;
}

/** The files of all producers to the same queues, for whoever only wants to look at them. */
export function spoolFiles(root: string): { path: string; producerId: string }[] {
  return namesIn(root).flatMap((name) => {
    const [, producerId] = FOLDER.exec(name) ?? [];
    if (producerId === undefined) return [];
    return namesIn(join(root, name))
      .filter((file) => SEGMENT.test(file))
      .toSorted()
      .map((file) => ({ path: join(root, name, file), producerId }));
  });
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
