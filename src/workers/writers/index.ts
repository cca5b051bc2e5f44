import type { EventKind } from '../../queues/events.ts';
import { memoryAccess } from './memoryAccess.ts';
import { metrics } from './metrics.ts';
import { sessionEvent } from './sessionEvent.ts';
import { transition } from './transition.ts';
import type { Writer } from './writer.ts';

export { writeBatch, type Writer, type WriteResult } from './writer.ts';

/** The writer of each kind; the compiler names the kind that has none. */
export const WRITERS: Readonly<Record<EventKind, Writer>> = {
  'memory-access': memoryAccess,
  transition,
  metrics,
  'session-event': sessionEvent,
};
