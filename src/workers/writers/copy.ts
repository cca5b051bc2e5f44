import type { Database, RunStatement } from '../../database/client.ts';
import type { Step } from '../../database/pipeline.ts';
import { LEDGER_OF_NEW } from '../../ledger/ledger.ts';
import type { EventKind } from '../../queues/events.ts';
import type { Lines, TableLines } from '../../queues/eventList.ts';
import { jobsOf, type Batch } from '../batch.ts';
import { unescape, withParents, type Table } from './rows.ts';
import { SESSIONS_BY_NAMES } from './sessions.ts';
import type { Writer } from './writer.ts';

/**
 * What a copy begins with. It fails, with division_by_zero, where the tables' owner has a trigger that may leave rows out,
 * or a rule: COPY would not tell which became rows. And the server finds out in 15 s that the host of a worker is
 * gone, as a worker does of a server's: it reads COPY's data with memories and events locked, and no other limit of
 * time ends that.
 */
const begin = (tables: readonly Table[]) => {
  const names = tables.map(({ name }) => `'"${name}"'::regclass`).join(', ');
  return `
SELECT 1 / (
    NOT EXISTS (SELECT FROM pg_trigger
      WHERE tgrelid IN (${names}) AND NOT tgisinternal AND tgtype & ${BEFORE_ROW_INSERT} = ${BEFORE_ROW_INSERT})
    AND NOT EXISTS (SELECT FROM pg_rewrite WHERE ev_class IN (${names}))
  )::int,
  set_config('tcp_keepalives_idle', '5', true), set_config('tcp_keepalives_interval', '1', true),
  set_config('tcp_keepalives_count', '10', true)`;
};

/** Bits of `pg_trigger.tgtype`: for each row, before, an insert. */
const BEFORE_ROW_INSERT = 1 | 2 | 4;

/**
 * How long COPY waits for another transaction that has inserted one of the events, or is deleting a parent.
 * PostgreSQL looks for a deadlock after a second, unless told otherwise.
 */
const WAIT_AT_MOST = `SELECT set_config('lock_timeout', '100ms', true)`;

/**
 * Makes what writes a batch of which no event is a row yet, and none waits for its parent: COPY, which
 * takes half of the statement's time for small batches and four fifths for large ones.
 * With any other batch it fails, and nothing is written.
 *
 * It keeps to the rules that `Writer` has:
 *
 * 1. Parents that change, the memories of accesses, are changed in the order of their ids before the first row is
 *    copied. All others are left to the foreign keys to lock: no writer waits for such a lock.
 * 2. Lines are in no order, since to sort them costs as much as to read them did. Two batches that meet in the same events
 *    in different orders would wait for each other; but one of accesses waits for their memories before it copies
 *    any, and none waits for long for a row (`WAIT_AT_MOST`): it fails, and is then written as `Writer` says.
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

  const beginning = begin(tables);

  return async function copy(batch: Batch, lines: readonly Lines[]): Promise<boolean> {
    const steps: Step[] = [{ sql: beginning }];
    if (count) steps.push({ sql: count, parameters: [JSON.stringify(tally(batch, lines))] });
    steps.push({ sql: WAIT_AT_MOST });
    for (const [n, { isOfSessions }] of tables.entries()) {
      let copied = lines.flatMap((ofTables) => ofTables[n] as TableLines);
      if (isOfSessions) {
        const renamed = await nameSessionsById(run, copied);
        if (!renamed) return false;
        copied = renamed;
      }
      const texts = copied.flatMap(({ text }) => text || []);
      if (texts.length > 0) steps.push({ sql: copies[n] as string, copy: texts });
    }
    steps.push({ sql: LEDGER_OF_NEW, parameters: [jobsOf(batch), writerId, kind] });
    await runTogether(steps);
    return true;
  };
}

/** Puts the `id` of each line's session in place of the name that it has; undefined if one is unknown. */
async function nameSessionsById(
  run: RunStatement,
  lines: TableLines[],
): Promise<TableLines[] | undefined> {
  const names = new Set(lines.flatMap(({ sessions }) => [...sessions]));
  if (names.size === 0) return lines;
  const found = await run<{ id: string; sessionId: string }>(SESSIONS_BY_NAMES, [
    JSON.stringify([...names]),
  ]);
  // Where one session's `sessionId` is another's `id`, the `id` wins.
  const ids = new Map([
    ...found.map(({ id, sessionId }) => [sessionId, id] as const),
    ...found.map(({ id }) => [id, id] as const),
  ]);
  for (const name of names) if (!ids.has(name)) return undefined;
  return lines.map((ofJob) => {
    const isNamedById = [...ofJob.sessions].every((name) => ids.get(name) === name);
    return isNamedById ? ofJob : { ...ofJob, text: withParents(ofJob.text, ids) };
  });
}

/** Of each parent: how many of the events are its, and when the latest of them occurred. */
function tally(batch: Batch, lines: readonly Lines[]) {
  const parents = new Map<string, { events: number; latest: number }>();
  for (const [n, { events, from }] of batch.entries()) {
    const [{ text }] = lines[n] as readonly [TableLines];
    for (let index = from, at = 0; at < text.length; index++) {
      const end = text.indexOf('\n', at);
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
