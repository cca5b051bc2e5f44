import type { PlannedEvent } from './plan.ts';

export const EVENT_TABLES = [
  'MemoryAccess',
  'StateTransition',
  'SessionMetric',
  'AgentMetric',
  'SessionEvent',
] as const;
export type EventTable = (typeof EVENT_TABLES)[number];

export const PARENT_TABLES = [
  'User',
  'AI_Agent',
  'AgentSession',
  'ModuleState',
  'InteractionMemory',
] as const;
export type Table = EventTable | (typeof PARENT_TABLES)[number];

/** A figure for each parent, and how two runtimes' figures of one parent become one. */
const FIGURES = {
  /** By memory id. */
  memoryAccesses: 'sum',
  /** By memory id; milliseconds since 1970. */
  memoryLastAccess: 'max',
  /** By module state id. */
  stateTransitions: 'sum',
  /** By the session's `sessionId`. */
  sessionEvents: 'sum',
  sessionMetrics: 'sum',
  sessionMetricValues: 'sum',
  sessionChildren: 'sum',
  sessionsEnded: 'sum',
  /** By agent id. */
  agentMetrics: 'sum',
  agentMetricValues: 'sum',
  agentSessions: 'sum',
  /** By agent id; milliseconds since 1970. */
  agentLastActive: 'max',
  /** By module id. */
  moduleStates: 'sum',
} as const;
export type Figure = keyof typeof FIGURES;
const FIGURE_NAMES = Object.keys(FIGURES) as Figure[];

/** What a runtime says that it did. Claims travel between processes, so they are plain data. */
export interface Claim {
  /** Events emitted, those emitted again included. */
  emitted: number;
  duplicates: number;
  /** Different ids. */
  rows: Record<Table, number>;
  checksums: Record<EventTable, bigint>;
  figures: Record<Figure, Map<string, number>>;
}

/** Keeps account of what a runtime does, beside its doing it. */
export class Ledger {
  readonly claim: Claim = emptyClaim();
  /** When the first event was emitted, in milliseconds since 1970; 0 before that. */
  emittedFrom = 0;

  /** A row that is no event. */
  row(table: (typeof PARENT_TABLES)[number]): void {
    this.claim.rows[table]++;
  }

  figure(figure: Figure, key: string, value: number): void {
    const map = this.claim.figures[figure];
    map.set(key, join(figure, map.get(key), value));
  }

  emitted(planned: PlannedEvent, isDuplicate: boolean): void {
    this.claim.emitted++;
    this.emittedFrom ||= Date.now();
    if (isDuplicate) this.claim.duplicates++;
    else this.#event(planned);
  }

  #event({ kind, event }: PlannedEvent): void {
    const id = event.id;
    switch (kind) {
      case 'memory-access':
        this.#eventRow('MemoryAccess', id);
        this.figure('memoryAccesses', event.memoryId, 1);
        this.figure('memoryLastAccess', event.memoryId, event.occurredAt.getTime());
        break;
      case 'transition':
        this.#eventRow('StateTransition', id);
        this.figure('stateTransitions', event.stateId, 1);
        break;
      case 'session-event':
        this.#eventRow('SessionEvent', id);
        this.figure('sessionEvents', event.sessionId, 1);
        break;
      case 'metrics':
        if (event.scope === 'session') {
          this.#eventRow('SessionMetric', id);
          this.figure('sessionMetrics', event.sessionId, 1);
          this.figure('sessionMetricValues', event.sessionId, event.metricValue);
        } else {
          this.#eventRow('AgentMetric', id);
          this.figure('agentMetrics', event.agentId, 1);
          this.figure('agentMetricValues', event.agentId, event.metricValue);
        }
    }
  }

  #eventRow(table: EventTable, id: string): void {
    this.claim.rows[table]++;
    this.claim.checksums[table] ^= lowBits(id);
  }
}

/** The last 64 bits of a UUID, which are random in every version that we make. */
function lowBits(id: string): bigint {
  return BigInt(`0x${id.replaceAll('-', '').slice(16)}`);
}

export function mergeClaims(claims: readonly Claim[]): Claim {
  const merged = emptyClaim();
  for (const claim of claims) {
    merged.emitted += claim.emitted;
    merged.duplicates += claim.duplicates;
    for (const table of [...PARENT_TABLES, ...EVENT_TABLES]) {
      merged.rows[table] += claim.rows[table];
    }
    for (const table of EVENT_TABLES) merged.checksums[table] ^= claim.checksums[table];
    for (const figure of FIGURE_NAMES) {
      const map = merged.figures[figure];
      for (const [key, value] of claim.figures[figure]) {
        map.set(key, join(figure, map.get(key), value));
      }
    }
  }
  return merged;
}

const join = (figure: Figure, before: number | undefined, value: number) =>
  FIGURES[figure] === 'sum' ? (before ?? 0) + value : Math.max(before ?? 0, value);

function emptyClaim(): Claim {
  const each = <K extends string, V>(keys: readonly K[], value: () => V) =>
    Object.fromEntries(keys.map((key) => [key, value()])) as Record<K, V>;
  return {
    emitted: 0,
    duplicates: 0,
    rows: each([...PARENT_TABLES, ...EVENT_TABLES], () => 0),
    checksums: each(EVENT_TABLES, () => 0n),
    figures: each(FIGURE_NAMES, () => new Map<string, number>()),
  };
}
