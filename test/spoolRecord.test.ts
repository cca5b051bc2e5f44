import { mkdtempSync, readdirSync, readlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import fc from 'fast-check';
import { expect, it } from 'vitest';

import { encodeRecord, readRecords, type SpoolRecord } from '../src/producers/spool/record.ts';
import { Segment } from '../src/producers/spool/segment.ts';
import { EVENT_KINDS } from '../src/queues/events.ts';
import { removeFolder } from './support/files.ts';

const record: fc.Arbitrary<SpoolRecord> = fc.record({
  kind: fc.constantFrom(...EVENT_KINDS),
  accepted: fc.nat(),
  dropped: fc.nat(),
  json: fc.json({ maxDepth: 1, stringUnit: 'grapheme' }),
});
const records = fc.array(record, { minLength: 1, maxLength: 8 });

const encode = (list: SpoolRecord[]) =>
  list.map((one) => Buffer.from(encodeRecord(one, Buffer.byteLength(one.json))));

it('reads what it wrote', () => {
  fc.assert(
    fc.property(records, (list) => {
      expect(readRecords(Buffer.concat(encode(list)))).toEqual({ records: list, damaged: 0 });
    }),
  );
});

it('loses no record but the one that a damaged byte is in', () => {
  fc.assert(
    fc.property(records, fc.nat(), fc.integer({ min: 1, max: 255 }), (list, where, flip) => {
      const parts = encode(list);
      const file = Buffer.concat(parts);
      const at = where % file.length;
      file[at]! ^= flip;
      let end = 0;
      const hit = parts.findIndex((part) => (end += part.length) > at);
      const others = list.filter((_, index) => index !== hit);
      const found = readRecords(file);
      // A damaged line feed harms nobody.
      const isWhole = at === end - 1;
      expect(found).toEqual({ records: isWhole ? list : others, damaged: isWhole ? 0 : 1 });
    }),
    { numRuns: 2000 },
  );
});

it('loses no record but the one that was cut off', () => {
  fc.assert(
    fc.property(records, fc.nat(), (list, where) => {
      const parts = encode(list);
      const file = Buffer.concat(parts);
      const length = where % (file.length + 1);
      let end = 0;
      const whole = parts.filter((part) => (end += part.length) - 1 <= length);
      const found = readRecords(file.subarray(0, length));
      expect(found.records).toEqual(list.slice(0, whole.length));
      expect(found.damaged).toBeLessThanOrEqual(1);
    }),
    { numRuns: 500 },
  );
});

it('finds its way through any bytes before, between and after', () => {
  const noise = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from([...bytes, 0x0a]));
  fc.assert(
    fc.property(records, fc.array(noise, { minLength: 9, maxLength: 9 }), (list, noises) => {
      const file = Buffer.concat(encode(list).flatMap((part, n) => [noises[n]!, part]));
      expect(readRecords(Buffer.concat([file, noises[8]!])).records).toEqual(list);
    }),
  );
});

/** Whether this process has the file open. */
const isOpen = (path: string) =>
  readdirSync('/proc/self/fd').some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path;
    } catch {
      return false; // that of the listing itself
    }
  });

it.skipIf(process.platform !== 'linux')(
  'a segment that is written and sealed during its fsync is not closed without another',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'annals-segment-'));
    const segment = Segment.create(join(folder, '1.log'), 'producer');
    segment.append('one', []);
    const first = segment.sync();
    segment.append('two', []);
    segment.seal();
    await first;
    expect(isOpen(segment.path)).toBe(true);
    await segment.sync();
    expect(isOpen(segment.path)).toBe(false);
    removeFolder(folder);
  },
);
