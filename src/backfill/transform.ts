import type { PrismaClient } from '../database/client.ts';

/** A column that the backfill fills in where the application has not. */
export interface Column {
  name: string;
  /** PostgreSQL's type. */
  type: string;
  /**
   * SQL over the row `t` that gives the value, or NULL where there is none to give. Other rows are
   * read by scalar subqueries, never by joins: when `t` was changed while its lock was waited for,
   * PostgreSQL computes an expression anew from the new version, but keeps what a join had found.
   */
  derive: string;
  /** What the column holds while nobody has set it. Default NULL. */
  unset?: string;
}

/** A row of another table that each row has to have. */
export interface Companion {
  table: string;
  /** The companion's column that refers to the row. */
  parent: string;
  /** SQL over the row `t`: whether it lacks its companion. */
  lacks: string;
  /** Columns of the companion and the SQL over `t` that gives them. There is an `id` (uuid). */
  values: Record<string, string>;
}

/** Values that only JavaScript can make, a chunk at a time. */
export interface Computation {
  /** The column, whose `derive` is `COMPUTED`. */
  column: string;
  /** SQL over `t`: text that the value is made from. */
  input: string;
  compute: (input: string) => string;
}

/** What the backfill does to one table. Everything else about a backfill is the same for all. */
export interface Transform {
  /** As the command line and the summary say it. */
  name: string;
  table: string;
  columns: readonly Column[];
  /** Lanes at most; for tables whose rows hold each other up. */
  maxLanes?: number;
  companion?: Companion;
  computation?: Computation;
  /** What follows when a run has ended; it must be safe to repeat. */
  after?: (prisma: PrismaClient) => Promise<unknown>;
}

/** A table that may have few lanes goes first: it would be at work long after the others. Lowest first. */
export const priorityOf = ({ maxLanes = Infinity }: Transform) => Math.min(maxLanes, 10);

/** Which rows a statement is about: SQL over `t`, whose parameters begin at `$first`. */
export interface Rows {
  sql: (first: number) => string;
  params: unknown[];
}

export const withIds = (ids: readonly string[]): Rows => ({
  params: [ids],
  sql: (first) => `t."id" = ANY ($${first}::text[])`,
});

/** The value that a `Computation` made for the row, as `derive` reads it. */
export const COMPUTED = `($1::jsonb ->> t."id")`;

const unset = ({ name, unset }: Column) =>
  unset === undefined ? `t."${name}" IS NULL` : `t."${name}" = ${unset}`;

/** Whether a row needs work. What is cheap to see stands first: OR stops at the first that is true. */
export function needs(transform: Transform): string {
  const { columns, companion, computation } = transform;
  const lacking = columns.map((column) => {
    // What JavaScript makes, it can make of every row.
    const isAlways = column.name === computation?.column || column.derive.startsWith("'");
    return isAlways ? unset(column) : `(${unset(column)} AND (${column.derive}) IS NOT NULL)`;
  });
  return `(${[...lacking, ...(companion ? [companion.lacks] : [])].join('\n    OR ')})`;
}

/** The values within `entry`, a JSON array of the row's id, its columns, and its companion's id and fingerprint. */
function fromEntry({ columns }: Transform): string {
  return columns
    .map(({ name, type }, index) =>
      type.endsWith('[]')
        ? `CASE WHEN json_typeof(e.entry -> ${index + 1}) = 'array' THEN ARRAY(SELECT json_array_elements_text(e.entry -> ${index + 1}))::${type} END AS "${name}"`
        : `(e.entry ->> ${index + 1})::${type} AS "${name}"`,
    )
    .join(',\n    ');
}

/** What the chunk `id` of the undo log wrote: a row each, with NULL for what it left as it was. */
const written = (transform: Transform, id: string) => `
  SELECT e.entry ->> 0 AS "id", ${fromEntry(transform)},
    (e.entry ->> ${transform.columns.length + 1})::uuid AS "+companion", e.entry ->> ${transform.columns.length + 2} AS "+made",
    u."createdAt" AS "+at"
  FROM "BackfillUndo" u, json_array_elements(u."rows") AS e (entry)
  WHERE u."id" = ${id}`;

/** All that the companion `c` holds. Columns that a later version adds count once they hold something. */
const FINGERPRINT = `encode(sha256(convert_to(jsonb_strip_nulls(to_jsonb(c))::text, 'UTF8')), 'hex')`;

/** Whether the row `t` still holds what the backfill wrote to the column, by the entry `w`. */
const holds = ({ name }: Column) => `t."${name}" = w."${name}"`;

/** Whether such a value is no longer what the row should hold. */
const stale = (column: Column) =>
  `(${holds(column)} AND (${column.derive}) IS DISTINCT FROM w."${column.name}")`;

/**
 * Fills in the `rows` and writes down what it wrote. One statement:
 *
 * - `picked` locks the rows that need work in the order of their ids and leaves out those that
 *   somebody else has locked. It returns each row as it is under the lock, whatever changed since
 *   the statement began, with the values to be set: none where the application has set one.
 * - The update begins from the statement's snapshot, finds the version that we have locked, and
 *   sets only what `picked` found unset. A row that was deleted is not there to be locked.
 *
 * Its parameters: $1 computed values (JSON object by id), $2 the run, and then those of `rows`.
 */
export function fillSql(transform: Transform, rows: Rows): string {
  const { table, columns, companion } = transform;
  const which = rows.sql(3);
  const extra = Object.entries(companion?.values ?? {});
  return `
WITH picked AS MATERIALIZED (
  SELECT t."id",
    ${columns.map((c) => `CASE WHEN ${unset(c)} THEN ${c.derive} END AS "${c.name}"`).join(',\n    ')}
    ${companion ? `, ${companion.lacks} AS "+lacks", ${extra.map(([name, value]) => `${value} AS "+${name}"`).join(', ')}` : ''}
  FROM "${table}" t
  WHERE ${which} AND $1::jsonb IS NOT NULL AND ${needs(transform)}
    AND NOT EXISTS (SELECT FROM "BackfillQuarantine" q WHERE q."runId" = $2::uuid AND q."rowId" = t."id")
  ORDER BY t."id"
  FOR NO KEY UPDATE OF t SKIP LOCKED
), changed AS (
  UPDATE "${table}" t
  SET ${columns.map(({ name }) => `"${name}" = coalesce(p."${name}", t."${name}")`).join(', ')}
  FROM picked p
  WHERE t."id" = p."id" AND ${which}
  RETURNING p.*
), added AS (
  ${
    companion
      ? `INSERT INTO "${companion.table}" AS c ("id", ${extra.map(([name]) => `"${name}"`).join(', ')})
  SELECT gen_random_uuid(), ${extra.map(([name]) => `"+${name}"`).join(', ')} FROM changed WHERE "+lacks" ORDER BY "id"
  ON CONFLICT DO NOTHING
  RETURNING "id", "${companion.parent}" AS "rowId", ${FINGERPRINT} AS "made"`
      : 'SELECT NULL::uuid AS "id", NULL::text AS "rowId" WHERE false'
  }
), noted AS (
  INSERT INTO "BackfillUndo" ("runId", "tableName", "rows", "createdAt")
  SELECT $2::uuid, '${transform.name}',
    json_agg(json_build_array(c."id", ${columns.map(({ name }) => `c."${name}"`).join(', ')}, a."id"${companion ? ', a."made"' : ''})),
    clock_timestamp() AT TIME ZONE 'utc'
  FROM changed c LEFT JOIN added a ON a."rowId" = c."id"
  HAVING count(*) > 0
)
SELECT count(*)::int AS "changed" FROM changed`;
}

/** The inputs of a `Computation`, of rows locked as `fillSql` locks them, so that they stay as read. */
export const inputSql = ({ table }: Transform, { column, input }: Computation, rows: Rows) => `
SELECT t."id", ${input} AS "input" FROM "${table}" t
WHERE ${rows.sql(1)} AND t."${column}" IS NULL
ORDER BY t."id" FOR NO KEY UPDATE OF t SKIP LOCKED`;

const staleRows = (transform: Transform) => `
  SELECT t."id" FROM "${transform.table}" t JOIN w ON w."id" = t."id"
  WHERE $1::jsonb IS NOT NULL AND (${transform.columns.map(stale).join('\n    OR ')})`;

/**
 * Locks and lists the rows in which what a chunk ($2) wrote is no longer right, such as the link of
 * a state when another one came in before it.
 */
export const listStaleSql = (transform: Transform) => `
WITH w AS MATERIALIZED (${written(transform, '$2::int')}
)${staleRows(transform)}
  ORDER BY t."id" FOR NO KEY UPDATE OF t`;

/**
 * Makes these values anew in some ($3) of the rows that are locked, and writes down what it wrote
 * for the run $4. A value that the row no longer gives is unset. (Never in two steps, unset and then
 * filled in: the column may be NOT NULL by now, and what is unset may look like a row of another kind.)
 */
export const remakeStaleSql = (transform: Transform) => {
  const { table, columns, name: transformName } = transform;
  return `
WITH w AS MATERIALIZED (${written(transform, '$2::int')}
), remade AS MATERIALIZED (
  SELECT t."id", ${columns.map((c) => `${stale(c)} AS "?${c.name}", CASE WHEN ${stale(c)} THEN ${c.derive} END AS "${c.name}"`).join(',\n    ')}
  FROM "${table}" t JOIN w ON w."id" = t."id"
  WHERE t."id" = ANY ($3::text[]) AND $1::jsonb IS NOT NULL
), changed AS (
  UPDATE "${table}" t
  SET ${columns.map(({ name, unset }) => `"${name}" = CASE WHEN r."?${name}" THEN coalesce(r."${name}", ${unset ?? 'NULL'}) ELSE t."${name}" END`).join(', ')}
  FROM remade r
  WHERE t."id" = r."id" AND (${columns.map(({ name }) => `r."?${name}"`).join(' OR ')})
  RETURNING r.*
), telling AS (
  SELECT * FROM changed WHERE num_nonnulls(${columns.map(({ name }) => `"${name}"`).join(', ')}) > 0
), noted AS (
  INSERT INTO "BackfillUndo" ("runId", "tableName", "rows", "createdAt")
  SELECT $4::uuid, '${transformName}', json_agg(json_build_array("id", ${columns.map(({ name }) => `"${name}"`).join(', ')}, NULL)),
    clock_timestamp() AT TIME ZONE 'utc'
  FROM telling HAVING count(*) > 0
)
SELECT count(*)::int AS "changed" FROM telling`;
};

/** The inputs of a `Computation`, of rows that are locked already. */
export const lockedInputSql = ({ table }: Transform, { input }: Computation) =>
  `SELECT t."id", ${input} AS "input" FROM "${table}" t WHERE t."id" = ANY ($1::text[])`;

/** How many bytes each of these inputs has. */
export const inputSizeSql = ({ table }: Transform, { input }: Computation) =>
  `SELECT t."id", pg_column_size(${input})::int AS "bytes" FROM "${table}" t WHERE t."id" = ANY ($1::text[]) ORDER BY t."id"`;

/** Counts what is wrong of what a chunk ($2) wrote, in rows that nobody else has written since. */
export const countStaleSql = (transform: Transform) => `
WITH w AS MATERIALIZED (${written(transform, '$2::int')}
)
SELECT count(*)::int AS "differing" FROM "${transform.table}" t JOIN w ON w."id" = t."id"
WHERE t."updatedAt" <= w."+at" AND $1::jsonb IS NOT NULL AND (${transform.columns.map(stale).join('\n    OR ')})`;

/** The ids and inputs of a chunk of the undo log, for a `Computation`. */
export const writtenInputSql = ({ table, columns }: Transform, { column, input }: Computation) => `
SELECT t."id", ${input} AS "input"
FROM "BackfillUndo" u, json_array_elements(u."rows") AS e (entry), "${table}" t
WHERE u."id" = $1 AND t."id" = e.entry ->> 0
  AND e.entry ->> ${columns.findIndex(({ name }) => name === column) + 1} IS NOT NULL`;

/**
 * Whether a row needs work and is not in quarantine of the run (a parameter). Of a row that is,
 * nothing is looked at: it may be damaged, or what derives its values may raise.
 */
export const remains = (transform: Transform, run: string) =>
  `CASE WHEN EXISTS (SELECT FROM "BackfillQuarantine" q WHERE q."runId" = ${run}::uuid AND q."rowId" = t."id") THEN false
    ELSE ${needs(transform)} END`;

/** Counts the rows that need work, those in quarantine of the run ($1) left out. */
export const countRemainingSql = (transform: Transform) => `
SELECT count(*)::int AS "remaining" FROM "${transform.table}" t
WHERE ${remains(transform, '$1')}`;

/** The ids of such rows, at most $2 of them. */
export const listRemainingSql = (transform: Transform) => `
SELECT t."id" FROM "${transform.table}" t
WHERE ${remains(transform, '$1')}
LIMIT $2`;

/**
 * Takes back what a chunk ($1) wrote wherever it still stands, and forgets the chunk. A value that
 * the application has set since is not equal to ours, and stays. A companion goes if all of it is as
 * it was made; one that somebody is changing is waited for, and its fingerprint taken anew.
 */
export function undoSql(transform: Transform): string {
  const { table, columns, companion } = transform;
  return `
WITH w AS MATERIALIZED (${written(transform, '$1::int')}
), locked AS MATERIALIZED (
  SELECT t."id" FROM "${table}" t JOIN w ON w."id" = t."id"
  ORDER BY t."id" FOR NO KEY UPDATE OF t
), reverted AS (
  UPDATE "${table}" t
  SET ${columns.map((c) => `"${c.name}" = CASE WHEN ${holds(c)} THEN ${c.unset ?? 'NULL'} ELSE t."${c.name}" END`).join(', ')}
  FROM w, locked l
  WHERE t."id" = w."id" AND t."id" = l."id" AND (${columns.map(holds).join(' OR ')})
  RETURNING t."id"
), removed AS (
  ${companion ? `DELETE FROM "${companion.table}" c USING w WHERE c."id" = w."+companion" AND ${FINGERPRINT} = w."+made" RETURNING c."id"` : 'SELECT 1'}
), forgotten AS (
  DELETE FROM "BackfillUndo" WHERE "id" = $1::int
)
SELECT (SELECT count(*)::int FROM reverted) AS "changed", (SELECT count(*) FROM removed)`;
}
