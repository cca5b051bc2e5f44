import type { EventTable } from '../../src/demo/ledger.ts';
import type { PlannedEvent } from '../../src/demo/plan.ts';

/** The columns of each table that the load fills. */
export const COLUMNS = {
  MemoryAccess: [
    'id',
    'occurredAt',
    'memoryId',
    'accessType',
    'accessedBy',
    'accessorType',
    'context',
    'usefulness',
  ],
  StateTransition: ['id', 'occurredAt', 'stateId', 'triggerType', 'transitionData', 'newValues'],
  SessionMetric: ['id', 'occurredAt', 'sessionId', 'metricType', 'metricValue'],
  AgentMetric: ['id', 'occurredAt', 'agentId', 'metricType', 'metricValue', 'timeframe'],
  SessionEvent: ['id', 'occurredAt', 'sessionId', 'eventType', 'eventData', 'sequence', 'duration'],
} as const satisfies Record<EventTable, readonly string[]>;

export const TABLES = Object.keys(COLUMNS) as EventTable[];

export function tableOf({ kind, event }: PlannedEvent): EventTable {
  switch (kind) {
    case 'memory-access':
      return 'MemoryAccess';
    case 'transition':
      return 'StateTransition';
    case 'session-event':
      return 'SessionEvent';
    case 'metrics':
      return event.scope === 'session' ? 'SessionMetric' : 'AgentMetric';
  }
}

/** The event as a line of COPY's text format. */
export function copyLine(planned: PlannedEvent): string {
  const fields = planned.event as unknown as Record<string, unknown>;
  return `${COLUMNS[tableOf(planned)].map((column) => copyField(fields[column])).join('\t')}\n`;
}

function copyField(value: unknown): string {
  if (value === undefined || value === null) return '\\N';
  if (value instanceof Date) return value.toISOString().slice(0, -1); // columns hold UTC, no zone
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return text.replace(/[\\\n\r\t]/g, (char) => ESCAPES[char] ?? char);
}

const ESCAPES: Readonly<Record<string, string>> = {
  '\\': '\\\\',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
};
