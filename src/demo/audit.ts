import { COMPARISONS, TOTALS } from './figureChecks.ts';
import { EVENT_TABLES, PARENT_TABLES, type Claim, type Table } from './ledger.ts';

/** Runs a statement and resolves to its rows. */
export type Query = (sql: string, params?: unknown[]) => Promise<Record<string, unknown>[]>;

/** What was found beside the record itself. */
export interface Findings {
  /** Times that a worker met an event that was a row already. */
  duplicatesIgnored: number;
  /** Jobs that failed for good. */
  deadLetters: number;
  /** Jobs that are still waiting, delayed or active. */
  jobsLeft: number;
}

export interface Check {
  name: string;
  expected: number | string;
  actual: number | string;
  ok: boolean;
}

export interface Audit {
  checks: Check[];
  /** Rows of events. */
  committed: number;
}

/** Compares the record with what the runtimes say that they did. The record holds nothing else. */
export async function audit(query: Query, claim: Claim, findings: Findings): Promise<Audit> {
  const checks: Check[] = [];
  let committed = 0;
  for (const table of PARENT_TABLES) {
    checks.push(check(`${table} rows`, claim.rows[table], await countRows(query, table)));
  }
  for (const table of EVENT_TABLES) {
    const found = await countRows(query, table);
    checks.push(check(`${table} rows`, claim.rows[table], found));
    committed += found;
  }
  for (const table of EVENT_TABLES) {
    const [row] = await query(CHECKSUM(table));
    const expected = claim.checksums[table].toString(16);
    checks.push(check(`${table} ids (checksum)`, expected, String(row?.['checksum'])));
  }
  for (const { name, figure, sql } of TOTALS) {
    const [row] = await query(sql);
    const expected = [...claim.figures[figure].values()].reduce((sum, value) => sum + value, 0);
    checks.push(check(name, expected, Number(row?.['total'])));
  }
  for (const { name, figure, sql } of COMPARISONS) {
    const expected = claim.figures[figure];
    const [row] = await query(DIFFERING(sql), [JSON.stringify(Object.fromEntries(expected))]);
    checks.push(check(name, expected.size, expected.size - Number(row?.['differing'])));
  }
  checks.push(
    // A job that is done twice, after a worker's stall for instance, is met and ignored as well.
    {
      ...check('duplicates ignored', claim.duplicates, findings.duplicatesIgnored),
      ok: findings.duplicatesIgnored >= claim.duplicates,
    },
    check('dead letters', 0, findings.deadLetters),
    check('jobs left in the queues', 0, findings.jobsLeft),
  );
  return { checks, committed };
}

export async function countRows(query: Query, table: Table): Promise<number> {
  const [row] = await query(`SELECT count(*)::int AS count FROM "${table}"`);
  return Number(row?.['count']);
}

export function check<T extends number | string>(name: string, expected: T, actual: T): Check {
  return { name, expected, actual, ok: actual === expected };
}

/** The exclusive or of the last 64 bits of all ids, as the ledger computes it. */
const CHECKSUM = (table: Table) => `
  SELECT coalesce(to_hex(bit_xor(
    ('x' || right(replace("id"::text, '-', ''), 16))::bit(64)::bigint
  )), '0') AS checksum
  FROM "${table}"`;

/** Keys that only one side has, or for which the two differ; `$1` is a JSON object. */
const DIFFERING = (sql: string) => `
  WITH expected AS (SELECT key, value::numeric FROM json_each_text($1::json)), actual AS (${sql})
  SELECT count(*)::int AS differing
  FROM expected FULL JOIN actual USING (key)
  WHERE expected.value IS DISTINCT FROM actual.value`;
