// @ts-check
import { ColumnTypeEnum as Column } from '@prisma/driver-adapter-utils';
import pg from 'pg';

const { builtins, getTypeParser } = pg.types;

/** What the engine reads from PostgreSQL's catalogue and from `_prisma_migrations`, by type OID. */
const COLUMN_TYPES = new Map([
  [builtins.BOOL, Column.Boolean],
  [builtins.INT2, Column.Int32],
  [builtins.INT4, Column.Int32],
  [builtins.INT8, Column.Int64],
  [builtins.OID, Column.Int64],
  [builtins.FLOAT4, Column.Float],
  [builtins.FLOAT8, Column.Double],
  [builtins.NUMERIC, Column.Numeric],
  // PostgreSQL's "char" of one byte, in which its catalogue keeps kinds and actions.
  [builtins.CHAR, Column.Character],
  [builtins.TIMESTAMP, Column.DateTime],
  [builtins.TIMESTAMPTZ, Column.DateTime],
  [1000, Column.BooleanArray],
  [1002, Column.CharacterArray],
  [1003, Column.TextArray], // name[]
  [1005, Column.Int32Array],
  [1007, Column.Int32Array],
  [1009, Column.TextArray],
  [1016, Column.Int64Array],
  [1028, Column.Int64Array], // oid[]
]);

/** @param {number} oid */
export const columnType = (oid) => COLUMN_TYPES.get(oid) ?? Column.Text;

/** The engine takes times in RFC 3339, where pg would make a `Date`. @param {string} text */
const time = (text) => `${text.replace(' ', 'T').replace(/[+-]\d\d(:\d\d)?$/, '')}+00:00`;

/** Parsers for `pg`: plain values where `columnType` promises them, and the text otherwise. */
export const parsers = {
  /** @param {number} oid */
  getTypeParser(oid) {
    switch (COLUMN_TYPES.get(oid)) {
      case undefined:
      case Column.Numeric:
        return String;
      case Column.DateTime:
        return time;
      default:
        return getTypeParser(oid, 'text');
    }
  },
};
