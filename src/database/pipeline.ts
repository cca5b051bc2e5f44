import type { Writable } from 'node:stream';

import type pg from 'pg';

/** A statement, and for a `COPY … FROM STDIN` what it reads. */
export interface Step {
  sql: string;
  parameters?: readonly string[];
  copy?: readonly string[];
}

/** What a connection of `pg` can do besides what its types tell. */
interface Wire {
  stream: Pick<Writable, 'cork' | 'uncork' | 'write'>;
  parse(statement: { text: string }): void;
  bind(values: { values: readonly string[] }): void;
  execute(portal: object): void;
  endCopyFrom(): void;
  sync(): void;
}

/** What stands before so many bytes of a `CopyData` message: its type and its length, which counts itself. */
function copyDataHeader(bytes: number): Buffer {
  const header = Buffer.allocUnsafe(5);
  header.write('d', 'latin1');
  header.writeInt32BE(bytes + 4, 1);
  return header;
}

/**
 * Statements that are sent together and are one transaction, which costs one way there and back. Without
 * a `BEGIN`, whatever comes before the `Sync` at the end is a transaction of its own: the server commits
 * there, and only then says that it is ready again. Once a statement has failed it drops all that comes before the `Sync`,
 * the data of a `COPY` included. (PostgreSQL, "Message Flow": extended query, pipelining, COPY operations.)
 *
 * For `Client.query` of `pg`, which hands it its connection and what the server answers; rows are dropped.
 */
export class Pipeline implements pg.Submittable {
  readonly done: Promise<void>;
  readonly #steps: readonly Step[];
  #resolve!: () => void;
  #reject!: (error: unknown) => void;

  constructor(steps: readonly Step[]) {
    this.#steps = steps;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  submit(connection: pg.Connection): void {
    const wire = connection as unknown as Wire;
    wire.stream.cork();
    for (const { sql, parameters = [], copy } of this.#steps) {
      wire.parse({ text: sql });
      wire.bind({ values: parameters });
      wire.execute({});
      if (copy === undefined) continue;
      for (const text of copy) {
        // As `sendCopyFromChunk` does, which would copy the text twice.
        wire.stream.write(copyDataHeader(Buffer.byteLength(text)));
        wire.stream.write(text);
      }
      wire.endCopyFrom();
    }
    wire.sync();
    wire.stream.uncork();
  }

  /** What `pg` puts its `query_timeout` around. */
  callback(): void {}

  /** The transaction has committed. */
  handleReadyForQuery(): void {
    this.callback();
    this.#resolve();
  }

  /** Of the server, or of a connection that was lost. */
  handleError(error: unknown): void {
    this.callback();
    this.#reject(error);
  }

  handleCommandComplete(): void {}
  handleCopyInResponse(): void {}
  handleDataRow(): void {}
  handleEmptyQuery(): void {}
  handlePortalSuspended(): void {}
  handleRowDescription(): void {}
}
