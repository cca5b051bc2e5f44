import type { Transform } from '../transform.ts';

/** What the plain columns say, in the words of the new ones. */
export const interactionMemories: Transform = {
  name: 'interaction-memories',
  table: 'InteractionMemory',
  columns: [
    { name: 'sourceType', type: 'text', derive: `'user_input'` },
    { name: 'verificationStatus', type: 'text', derive: `'unverified'` },
    {
      name: 'lastAccessedAt',
      type: 'timestamp(3)',
      // A row that has both of these came from a program that knows the enhanced schema: it has
      // no such time because nobody has accessed it yet.
      derive: `CASE WHEN t."lastAccessedAt" IS NOT NULL OR t."sourceType" IS NULL OR t."verificationStatus" IS NULL THEN t."createdAt" END`,
    },
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
