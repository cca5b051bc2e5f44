import type { Closer } from '../closer.ts';
import { openQueue, prepareQueues, type EventQueue, type QueueLocation } from './backend.ts';
import { EVENT_KINDS, type EventKind } from './catalogue.ts';

export type EventQueues = Readonly<Record<EventKind, EventQueue>>;

/** Opens the queues of all kinds to look at and to steer; the closer closes them. */
export async function openEventQueues(
  location: QueueLocation,
  closer: Closer,
): Promise<EventQueues> {
  await prepareQueues(location);
  const queues = Object.fromEntries(
    EVENT_KINDS.map((kind) => [kind, openQueue(location, kind)]),
  ) as Record<EventKind, EventQueue>;
  const all = Object.values(queues);
  for (const opened of all) opened.on('error', () => {}); // each call rejects as well
  closer.add(
    'queues',
    () => Promise.all(all.map((opened) => opened.close())),
    () => Promise.all(all.map((opened) => opened.disconnect())),
  );
  return queues;
}
