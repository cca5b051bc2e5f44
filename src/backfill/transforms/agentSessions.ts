import { TAG_BYTES } from '../../services/derived.ts';
import type { Transform } from '../transform.ts';

/** The first of the names under which `context` holds a text; `->>` alone would print numbers too. */
const text = (...names: string[]) =>
  `coalesce(${names.map((name) => `CASE WHEN jsonb_typeof(t."context" -> '${name}') = 'string' THEN nullif(t."context" ->> '${name}', '') END`).join(', ')})`;

/** The first of the names under which `context` holds an array; an empty one where none does. */
const array = (...names: string[]) =>
  `CASE ${names.map((name) => `WHEN jsonb_typeof(t."context" -> '${name}') = 'array' THEN t."context" -> '${name}'`).join(' ')} ELSE '[]' END`;

/** Purpose and tags as far as the context tells them. */
export const agentSessions: Transform = {
  name: 'agent-sessions',
  table: 'AgentSession',
  columns: [
    { name: 'sessionSource', type: 'text', derive: `'user'` },
    {
      name: 'sessionTags',
      type: 'text[]',
      derive: `ARRAY(
        SELECT tag.value #>> '{}' FROM jsonb_array_elements(${array('tags', 'categories')}) WITH ORDINALITY AS tag (value, place)
        WHERE jsonb_typeof(tag.value) = 'string' AND octet_length(tag.value #>> '{}') <= ${TAG_BYTES} ORDER BY tag.place)`,
    },
    { name: 'sessionPurpose', type: 'text', derive: text('purpose', 'intent', 'goal') },
  ],
};
