import { recountSessions } from '../../services/sessionCounts.ts';
import type { Transform } from '../transform.ts';

/** The strings of an array, the true keys of an object, nothing of anything else. */
const SPECIALIZATIONS = `CASE jsonb_typeof(t."capabilities")
        WHEN 'array' THEN ARRAY(
          SELECT item.value #>> '{}' FROM jsonb_array_elements(t."capabilities") WITH ORDINALITY AS item (value, place)
          WHERE jsonb_typeof(item.value) = 'string' ORDER BY item.place)
        WHEN 'object' THEN ARRAY(
          SELECT item.key FROM jsonb_each(t."capabilities") AS item WHERE item.value = 'true' ORDER BY item.key COLLATE "C")
        ELSE '{}'::text[] END`;

/** What agents have learnt to be, and the version with which each one's history begins. */
export const agents: Transform = {
  name: 'agents',
  table: 'AI_Agent',
  columns: [
    { name: 'learningMode', type: 'text', derive: `'passive'` },
    { name: 'trainingStatus', type: 'text', derive: `'initial'` },
    { name: 'specializations', type: 'text[]', derive: SPECIALIZATIONS },
    {
      name: 'lastActiveAt',
      type: 'timestamp(3)',
      // Never earlier than it is: createSession and the recount move it forward only.
      derive: `greatest(t."lastActiveAt", coalesce((SELECT max(s."startedAt") FROM "AgentSession" s WHERE s."agentId" = t."id"), t."updatedAt"))`,
    },
    {
      // What createSession counts meanwhile, the recount adds to.
      name: 'totalSessions',
      type: 'int',
      unset: '0',
      derive: `nullif((SELECT count(*)::int FROM "AgentSession" s WHERE s."agentId" = t."id"), 0)`,
    },
  ],
  companion: {
    table: 'AgentVersion',
    parent: 'agentId',
    lacks: `NOT EXISTS (SELECT FROM "AgentVersion" v WHERE v."agentId" = t."id" AND v."versionNumber" = '1.0.0')`,
    values: {
      agentId: `t."id"`,
      versionNumber: `'1.0.0'`,
      changes: `jsonb_build_object('configuration', t."configuration")`,
      // At most one version of an agent is active. One that becomes active just now is not seen
      // here: it makes the insert do nothing, and the row is found to lack its version later.
      isActive: `NOT EXISTS (SELECT FROM "AgentVersion" v WHERE v."agentId" = t."id" AND v."isActive")`,
      activatedAt: `CASE WHEN NOT EXISTS (SELECT FROM "AgentVersion" v WHERE v."agentId" = t."id" AND v."isActive") THEN t."createdAt" END`,
      createdAt: `t."createdAt"`,
    },
  },
  after: recountSessions,
};
