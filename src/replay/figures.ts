import type { PrismaClient } from '../database/client.ts';
import type { Records } from './records.ts';

/** Sums by name, at any depth. */
type Tally = { [name: string]: number | Tally };

/** What a file says, or what the tables hold of it. */
export type Figures = {
  sessions: { parents: number; children: number };
  sessionEvents: number;
  eventTypes: Record<string, number>;
  memoryAccesses: number;
  memories: number;
  stateTransitions: number;
  transitionsByTool: Record<string, number>;
  moduleStates: number;
  sessionMetrics: number;
  metricSums: { reward: number; turns: number; toolCalls: number };
  users: number;
};

export const noFigures = (): Figures => ({
  sessions: { parents: 0, children: 0 },
  sessionEvents: 0,
  eventTypes: {},
  memoryAccesses: 0,
  memories: 0,
  stateTransitions: 0,
  transitionsByTool: {},
  moduleStates: 0,
  sessionMetrics: 0,
  metricSums: { reward: 0, turns: 0, toolCalls: 0 },
  users: 0,
});

/** Names that several conversations share and that are to be counted once. */
export interface Shared {
  tasks: string[];
  users: string[];
  memories: string[];
}

/** Remembers names; what it holds grows with the names in a file, not with its messages. */
export class FirstSeen {
  readonly #seen = {
    tasks: new Set<string>(),
    users: new Set<string>(),
    memories: new Set<string>(),
  };

  /** The names of these conversations that no conversation before them had. */
  of(records: readonly Records[]): Shared {
    const fresh = (set: Set<string>, names: string[]) =>
      names.filter((name) => set.size < set.add(name).size);
    return {
      tasks: fresh(
        this.#seen.tasks,
        records.map(({ task }) => task),
      ),
      users: fresh(
        this.#seen.users,
        records.map(({ userId }) => userId),
      ),
      memories: fresh(
        this.#seen.memories,
        records.flatMap(({ memories }) => memories.map(({ id }) => id)),
      ),
    };
  }
}

const METRIC_NAMES: Readonly<Record<string, keyof Figures['metricSums']>> = {
  reward: 'reward',
  turns: 'turns',
  tool_calls: 'toolCalls',
};

/** What one conversation must become. */
export function expectedFigures(records: Records, shared: Shared): Figures {
  const figures = noFigures();
  figures.sessions = { parents: shared.tasks.length, children: 1 };
  figures.users = shared.users.length;
  figures.memories = shared.memories.length;
  figures.moduleStates = records.state ? 1 : 0;
  for (const tool of records.tools.values()) {
    addUp(figures.transitionsByTool, { [tool]: 1 });
  }
  for (const { kind, event } of records.events) {
    switch (kind) {
      case 'session-event':
        figures.sessionEvents++;
        addUp(figures.eventTypes, { [event.eventType]: 1 });
        break;
      case 'memory-access':
        figures.memoryAccesses++;
        break;
      case 'transition':
        figures.stateTransitions++;
        break;
      case 'metrics':
        figures.sessionMetrics++;
        addUp(figures.metricSums, { [METRIC_NAMES[event.metricType] ?? '']: event.metricValue });
    }
  }
  return figures;
}

/**
 * Counts what conversations became. Events, metrics and transitions are counted by the sessions
 * and states that they belong to, so that one too many shows as well as one too few; accesses by
 * their ids, since memories are shared. `$6` and `$7` are the transitions' ids and tools.
 */
const COUNT = `
WITH child AS MATERIALIZED (
  SELECT c."id", p."id" IS NOT NULL AS "hasParent"
  FROM "AgentSession" c LEFT JOIN "AgentSession" p ON p."id" = c."parentSessionId"
  WHERE c."sessionId" = ANY ($1::text[])
), event AS MATERIALIZED (
  SELECT e."eventType", count(*)::int AS "count"
  FROM "SessionEvent" e JOIN child c ON c."id" = e."sessionId"
  GROUP BY e."eventType"
), transition AS MATERIALIZED (
  SELECT coalesce(x."tool", 'other') AS "tool", count(*)::int AS "count"
  FROM "StateTransition" t
  LEFT JOIN unnest($6::uuid[], $7::text[]) AS x ("id", "tool") ON x."id" = t."id"
  WHERE t."stateId" = ANY ($5::text[])
  GROUP BY 1
), metric AS MATERIALIZED (
  SELECT count(*)::int AS "count",
    coalesce(sum("metricValue") FILTER (WHERE "metricType" = 'reward'), 0) AS "reward",
    coalesce(sum("metricValue") FILTER (WHERE "metricType" = 'turns'), 0) AS "turns",
    coalesce(sum("metricValue") FILTER (WHERE "metricType" = 'tool_calls'), 0) AS "toolCalls"
  FROM "SessionMetric" m JOIN child c ON c."id" = m."sessionId"
)
SELECT json_build_object(
  'sessions', json_build_object(
    'parents', (SELECT count(*) FROM "AgentSession" WHERE "sessionId" = ANY ($2::text[])),
    'children', (SELECT count(*) FROM child WHERE "hasParent")),
  'sessionEvents', (SELECT coalesce(sum("count"), 0) FROM event),
  'eventTypes', (SELECT coalesce(json_object_agg("eventType", "count"), '{}') FROM event),
  'memoryAccesses', (SELECT count(*) FROM "MemoryAccess" WHERE "id" = ANY ($8::uuid[])),
  'memories', (SELECT count(*) FROM "InteractionMemory" WHERE "id" = ANY ($4::text[])),
  'stateTransitions', (SELECT coalesce(sum("count"), 0) FROM transition),
  'transitionsByTool', (SELECT coalesce(json_object_agg("tool", "count"), '{}') FROM transition),
  'moduleStates', (SELECT count(*) FROM "ModuleState" WHERE "id" = ANY ($5::text[])),
  'sessionMetrics', (SELECT "count" FROM metric),
  'metricSums', (SELECT json_build_object('reward', "reward", 'turns', "turns",
    'toolCalls', "toolCalls") FROM metric),
  'users', (SELECT count(*) FROM "User" WHERE "id" = ANY ($3::text[]))
) AS "figures"`;

/** What these conversations have become, as the tables say. */
export async function storedFigures(
  prisma: PrismaClient,
  records: readonly Records[],
  shared: Shared,
): Promise<Figures> {
  const tools = records.flatMap(({ tools }) => [...tools]);
  const accesses = records
    .flatMap(({ events }) => events)
    .filter(({ kind }) => kind === 'memory-access');
  const [row] = await prisma.$queryRawUnsafe<[{ figures: Figures }]>(
    COUNT,
    records.map(({ session }) => session.sessionId),
    shared.tasks,
    shared.users,
    shared.memories,
    records.flatMap(({ state }) => (state ? [state.id] : [])),
    tools.map(([id]) => id),
    tools.map(([, tool]) => tool),
    accesses.map(({ event }) => event.id),
  );
  return row.figures;
}

/** Adds the figures of `part` to `sums`. */
export function addUp(sums: Tally, part: Tally): void {
  for (const [name, value] of Object.entries(part)) {
    const sum = sums[name];
    if (typeof value === 'number') sums[name] = ((sum as number | undefined) ?? 0) + value;
    else addUp((sums[name] ??= {}) as Tally, value);
  }
}

/** Whether figures agree; sums of fractions may differ in the last bits, by their order. */
export function agree(a: Tally, b: Tally): boolean {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].every((name) => {
    const [x = 0, y = 0] = [a[name], b[name]];
    if (typeof x === 'number' && typeof y === 'number') {
      return Math.abs(x - y) <= 1e-9 * Math.max(1, Math.abs(x));
    }
    return typeof x === 'object' && typeof y === 'object' && agree(x, y);
  });
}
