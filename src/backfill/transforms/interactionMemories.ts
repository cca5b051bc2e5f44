import type { Transform } from '../transform.ts';

/** What the plain columns say, in the words of the new ones. */
export const interactionMemories: Transform = {
  name: 'interaction-memories',
  table: 'InteractionMemory',
  columns: [
    { name: 'sourceType', type: 'text', derive: `'user_input'` },
    { name: 'verificationStatus', type: 'text', derive: `'unverified'` },
    { name: 'lastAccessedAt', type: 'timestamp(3)', derive: `t."createdAt"` },
    {
      name: 'memoryType',
      type: 'text',
      derive: `CASE lower(t."type")
        WHEN 'fact' THEN 'fact' WHEN 'knowledge' THEN 'fact'
        WHEN 'preference' THEN 'preference' WHEN 'setting' THEN 'preference'
        WHEN 'interaction' THEN 'interaction' WHEN 'conversation' THEN 'interaction' END`,
    },
    {
      name: 'confidence',
      type: 'float8',
      // NaN, which PostgreSQL holds to be greater than every number, says nothing.
      derive: `CASE WHEN t."importance" <> 'NaN' THEN least(greatest(t."importance", 0), 1) END`,
    },
  ],
};
