import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import type pg from 'pg';
import { from } from 'pg-copy-streams';

/** Sends lines of COPY's text format to a table. */
export async function copyInto(
  client: pg.Client,
  table: string,
  columns: readonly string[],
  chunks: Iterable<string>,
): Promise<void> {
  const names = columns.map((column) => `"${column}"`).join(', ');
  await pipeline(Readable.from(chunks), client.query(from(`COPY ${table} (${names}) FROM STDIN`)));
}
