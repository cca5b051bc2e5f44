import type { EventInput, EventKind } from './events.ts';

type NameOf<Event> = Event extends unknown ? keyof Event : never;
type Members<Kind extends EventKind> = Record<NameOf<EventInput<Kind>>, unknown>;
type Whole<Kind extends EventKind> = (
  event: Partial<Members<Kind>>,
  id: string,
  occurredAt: string,
) => Members<Kind>;

/**
 * Puts the members of a right event together with its id and time. What an event has not is undefined, and so not written.
 * Members are read by their names: one that is hidden (not enumerable), and so was not checked, would be written. Workers check again.
 *
 * Written out for each kind, so that all events of it have one shape: to copy events of many shapes (`{ ...event }`) costs
 * as much as to write them. And the text is then one piece as soon as `JSON.stringify` has written it: of a
 * text put together of pieces, each is an object that the garbage collector moves for as long as the event waits.
 */
export const WHOLE: { readonly [Kind in EventKind]: Whole<Kind> } = {
  'memory-access': (event, id, occurredAt) => ({
    id,
    occurredAt,
    memoryId: event.memoryId,
    accessType: event.accessType,
    accessedBy: event.accessedBy,
    accessorType: event.accessorType,
    context: event.context,
    usefulness: event.usefulness,
  }),
  transition: (event, id, occurredAt) => ({
    id,
    occurredAt,
    stateId: event.stateId,
    triggerType: event.triggerType,
    triggerId: event.triggerId,
    transitionData: event.transitionData,
    previousValues: event.previousValues,
    newValues: event.newValues,
  }),
  metrics: (event, id, occurredAt) => ({
    id,
    occurredAt,
    scope: event.scope,
    sessionId: event.sessionId,
    agentId: event.agentId,
    metricType: event.metricType,
    metricValue: event.metricValue,
    timeframe: event.timeframe,
    metadata: event.metadata,
  }),
  'session-event': (event, id, occurredAt) => ({
    id,
    occurredAt,
    sessionId: event.sessionId,
    eventType: event.eventType,
    eventData: event.eventData,
    sequence: event.sequence,
    duration: event.duration,
  }),
};
