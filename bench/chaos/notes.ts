import { closeSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { EVENT_KINDS, type EventInput, type EventKind } from '../../src/queues/events.ts';

/** One life of a producer process. */
export interface Life {
  producer: number;
  /** Counts the starts of this producer, from 0. */
  life: number;
}

export const MEMORIES = 50;

/** The n-th event of a life. Its id tells which one it is. */
export function chaosEvent(life: Life, n: number): { kind: EventKind; event: EventInput } {
  const kind = EVENT_KINDS[n % EVENT_KINDS.length] as EventKind;
  const id = eventId(life, n);
  const note = 'x'.repeat(800); // so that a small spool is full within seconds
  const events: { [K in EventKind]: EventInput<K> } = {
    'memory-access': {
      id,
      memoryId: `memory-${n % MEMORIES}`,
      accessType: 'read',
      accessedBy: 'agent',
      accessorType: 'agent',
      context: note,
    },
    transition: { id, stateId: 'state', triggerType: 'chaos', transitionData: { n, note } },
    metrics: {
      id,
      scope: 'session',
      sessionId: 'session',
      metricType: 'n',
      metricValue: n,
      metadata: { note },
    },
    'session-event': {
      id,
      sessionId: 'session',
      eventType: 'chaos',
      eventData: { n, note },
      sequence: n,
    },
  };
  return { kind, event: events[kind] };
}

/** The id of the n-th event of a life. */
export function eventId({ producer, life }: Life, n: number): string {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
  return `${hex(producer, 4)}${hex(life, 4)}-0000-4000-8000-${hex(n, 12)}`;
}

/** Notes, in a way that survives a kill -9, that the n-th event was accepted. */
export function openNotes(folder: string, { producer, life }: Life): (n: number) => void {
  const file = openSync(join(folder, `accepted-${producer}-${life}`), 'a');
  process.once('exit', () => closeSync(file));
  return (n) => writeSync(file, `${n}\n`);
}

/** What the producers' notes say of all of their lives. */
export interface Claim {
  /** Ids of events that were accepted. */
  ids: Set<string>;
  /** Accepted, an event emitted twice counted twice. */
  accepted: number;
  /**
   * Ids of events that may have been accepted: the one that a life was emitting when it was killed
   * before it could note it.
   */
  perhaps: Set<string>;
}

export function readNotes(folder: string): Claim {
  const claim: Claim = { ids: new Set(), accepted: 0, perhaps: new Set() };
  for (const file of readdirSync(folder)) {
    const [, producer, life] = /^accepted-(\d+)-(\d+)$/.exec(file) ?? [];
    if (producer === undefined) continue;
    const of = { producer: Number(producer), life: Number(life) };
    let next = 0;
    for (const line of readFileSync(join(folder, file), 'utf8').split('\n')) {
      if (line === '') continue;
      claim.accepted++;
      claim.ids.add(eventId(of, Number(line)));
      next = Math.max(next, Number(line) + 1);
    }
    claim.perhaps.add(eventId(of, next));
  }
  return claim;
}
