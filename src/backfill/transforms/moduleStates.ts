import { canonicalJson, sha256Hex } from '../../json.ts';
import { COMPUTED, type Transform } from '../transform.ts';

/** The state before `t` of the same module. Times may be equal; ids are not, and the index has both. */
const BEFORE = `SELECT b."id" FROM "ModuleState" b
        WHERE b."moduleId" = t."moduleId" AND (b."createdAt", b."id") < (t."createdAt", t."id")
        ORDER BY b."createdAt" DESC, b."id" DESC LIMIT 1`;

/**
 * Hashes, and the chain of each module. The hash is that of `upsertModuleState`, made by the same
 * code: JavaScript prints numbers and sorts keys as no SQL expression does.
 */
export const moduleStates: Transform = {
  name: 'module-states',
  table: 'ModuleState',
  // previousStateId is unique, so setting it locks the row as a change of its key does, and it
  // refers to another row, whose key must not be changing: two lanes would wait for each other.
  maxLanes: 1,
  columns: [
    { name: 'stateHash', type: 'text', derive: COMPUTED },
    { name: 'stateType', type: 'text', derive: `'module_state'` },
    {
      name: 'previousStateId',
      type: 'text',
      // A chain never forks: where another state follows that one already (the application linked
      // it before this one came in), this one begins a chain of its own.
      derive: `(SELECT before."id" FROM (${BEFORE}) before
        WHERE NOT EXISTS (SELECT FROM "ModuleState" f WHERE f."previousStateId" = before."id" AND f."id" <> t."id"))`,
    },
  ],
  computation: {
    column: 'stateHash',
    input: `t."state"::text`,
    compute: (state) => sha256Hex(canonicalJson(JSON.parse(state))),
  },
};
