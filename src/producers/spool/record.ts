import { crc32 } from 'node:zlib';

import { EVENT_KINDS, type EventKind } from '../../queues/events.ts';

/*
 * A record is a line:
 *
 *     crc32 length kind accepted dropped json\n
 *
 * `length` counts the bytes from `kind` to the end of `json`, and `crc32` (8 hexadecimal digits) is
 * theirs. `accepted` and `dropped` are what the producer had counted of the kind by then. JSON has
 * no raw line feed in it, so a reader that has lost its way finds it again at the next one.
 */

/** An event as it stands in a spool. */
export interface SpoolRecord {
  kind: EventKind;
  /** What its producer had accepted and dropped of the kind. */
  accepted: number;
  dropped: number;
  json: string;
}

/** Bytes of a record besides its JSON at most. */
export const RECORD_OVERHEAD = 8 + 1 + 7 + 1 + 13 + 1 + 16 + 1 + 16 + 1 + 1;

/** @param bytes - UTF-8 bytes of `json` */
export function encodeRecord(
  { kind, accepted, dropped, json }: SpoolRecord,
  bytes: number,
): string {
  const head = `${kind} ${accepted} ${dropped} `;
  const body = head + json;
  return `${crc32(body).toString(16).padStart(8, '0')} ${head.length + bytes} ${body}\n`;
}

const HEADER = /^([0-9a-f]{8}) ([0-9]{1,7}) /;
const HEADER_BYTES = 8 + 1 + 7 + 1;
const BODY = /^([a-z-]+) ([0-9]{1,16}) ([0-9]{1,16}) /;

/**
 * Reads a spool file, however it was damaged. A record counts when its checksum is right, whatever
 * follows it; where none begins, reading goes on after the next line feed. A damaged byte thus
 * costs no more than the record that it is in.
 *
 * @returns the records in the order of the file, and how many places of it are damaged
 */
export function readRecords(file: Buffer): { records: SpoolRecord[]; damaged: number } {
  const records: SpoolRecord[] = [];
  let damaged = 0;
  let isLost = false;
  for (let at = 0; at < file.length;) {
    const found = recordAt(file, at);
    if (found) {
      records.push(found.record);
      at = found.end + 1; // the line feed, or what became of it
    } else {
      if (!isLost) damaged++;
      const next = file.indexOf(0x0a, at);
      at = next === -1 ? file.length : next + 1;
    }
    isLost = !found;
  }
  return { records, damaged };
}

function recordAt(file: Buffer, at: number): { record: SpoolRecord; end: number } | undefined {
  const header = HEADER.exec(file.toString('latin1', at, at + HEADER_BYTES));
  if (!header) return undefined;
  const begin = at + header[0].length;
  const end = begin + Number(header[2]);
  if (end > file.length) return undefined;
  const body = file.subarray(begin, end);
  if (crc32(body) !== Number.parseInt(header[1] as string, 16)) return undefined;
  const text = body.toString();
  const [head, kind, accepted, dropped] = BODY.exec(text) ?? [];
  const known = EVENT_KINDS.find((one) => one === kind);
  if (head === undefined || !known) return undefined;
  return {
    record: {
      kind: known,
      accepted: Number(accepted),
      dropped: Number(dropped),
      json: text.slice(head.length),
    },
    end,
  };
}
