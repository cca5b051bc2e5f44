import type { Database, RunStatement } from '../../database/client.ts';
import type { Step } from '../../database/pipeline.ts';
import { LEDGER_OF_NEW } from '../../ledger/ledger.ts';
import type { EventKind } from '../../queues/events.ts';
import type { Lines } from '../../queues/eventList.ts';
import { jobsOf, type Batch } from '../batch.ts';
import { escape, lastOf, split, unescape, withLast } from './rows.ts';
import { SESSIONS_BY_NAMES } from './sessions.ts';
import type { Writer } from './writer.ts';

/**
 * Makes what writes a batch of which no event is a row yet, and none waits for its parent: COPY, which
 * takes half of the statement's time for small batches and four fifths for large ones.
 * With any other batch it fails, and nothing is written.
 *
 * It keeps to the rules that `Writer` has:
 *
 * 1. Parents that change, the memories of accesses, are changed in the order of their ids before the first row is
 *    copied. All others are left to the foreign keys to lock: no writer waits for such a lock.
 * 2. Lines are in the order of their ids. (Those of accesses need not be: two batches that have an event in
 *    common have its memory in common, and the second waits for that before it copies any.)
 * 3. COPY knows no `ON CONFLICT`: a row that is there already, or being written by another transaction that then
 *    commits, fails the batch. A parent that is not there fails it as well, by the foreign key.
 *    So what is counted, in memories and in the ledger, is what became a row.
 *
 * @returns false if it is known beforehand that an event waits for its parent
 */
export function createCopy(
  { run, runTogether }: Pick<Database, 'run' | 'runTogether'>,
  kind: EventKind,
  { tables, count }: Writer,
  writerId: string,
) {
  const copies = tables.map(({ name, columns }) => {
    const names = columns.map((column) => `"${column}"`).join(', ');
    return `COPY "${name}" (${names}) FROM STDIN`;
  });

  return async function copy(batch: Batch, lines: readonly Lines[]): Promise<boolean> {
    const steps: Step[] = [];
    if (count) steps.push({ sql: count, parameters: [JSON.stringify(tally(batch, lines))] });
    for (const [n, { isOfSession }] of tables.entries()) {
      const ofJobs = lines.flatMap((ofTables) => ofTables[n] || []);
      if (ofJobs.length === 0) continue;
      let copied = count ? ofJobs : ofJobs.flatMap(split).sort();
      if (isOfSession) {
        const named = await nameSessionsById(run, copied);
        if (!named) return false;
        copied = named;
      }
      steps.push({ sql: copies[n] as string, copy: `${copied.join('\n')}\n` });
    }
    steps.push({ sql: LEDGER_OF_NEW, parameters: [jobsOf(batch), writerId, kind] });
    await runTogether(steps);
    return true;
  };
}

/** Puts the `id` of each line's session in place of the name that it has; undefined if one is unknown. */
async function nameSessionsById(run: RunStatement, lines: string[]): Promise<string[] | undefined> {
  const fields = [...new Set(lines.map(lastOf))];
  const sessions = await run<{ id: string; sessionId: string }>(SESSIONS_BY_NAMES, [
    JSON.stringify(fields.map(unescape)),
  ]);
  // Where one session's `sessionId` is another's `id`, the `id` wins.
  const ids = new Map([
    ...sessions.map(({ id, sessionId }) => [escape(sessionId), escape(id)] as const),
    ...sessions.map(({ id }) => [escape(id), escape(id)] as const),
  ]);
  if (!fields.every((field) => ids.has(field))) return undefined;
  if (fields.every((field) => ids.get(field) === field)) return lines;
  return lines.map((line) => withLast(line, ids.get(lastOf(line)) as string));
}

/** Of each parent: how many of the events are its, and when the latest of them occurred. */
function tally(batch: Batch, lines: readonly Lines[]) {
  const parents = new Map<string, { events: number; latest: number }>();
  for (const [n, { events, from }] of batch.entries()) {
    const text = lines[n]?.[0] as string;
    for (let index = from, at = 0; at <= text.length; index++) {
      const feed = text.indexOf('\n', at);
      const end = feed < 0 ? text.length : feed;
      const field = text.slice(text.lastIndexOf('\t', end) + 1, end);
      at = end + 1;
      const occurredAt = events.occurredAt(index);
      const parent = parents.get(field);
      if (!parent) parents.set(field, { events: 1, latest: occurredAt });
      else {
        parent.events++;
        if (occurredAt > parent.latest) parent.latest = occurredAt;
      }
    }
  }
  return Array.from(parents, ([field, { events, latest }]) => ({
    id: unescape(field),
    events,
    latest: new Date(latest).toISOString(),
  }));
}
