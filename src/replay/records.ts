import { v5 as uuidv5 } from 'uuid';

import { canonicalJson, sha256Hex } from '../json.ts';
import type { EventInput, EventKind } from '../queues/events.ts';
import { EVENT_TYPES, type Conversation } from './conversation.ts';

/** Ours for good: with it, the same conversation has the same ids in every replay. */
const NAMESPACE = '1dc028a4-9b5d-4b80-b904-9b25c63388bf';

/** What the file does not say itself. */
export interface Naming {
  /** Begins the names of sessions, such as `airline` in `airline-0-1`. */
  source: string;
  /** Id and name of the agent that is recorded. */
  agentId: string;
  /** When the first conversation starts. */
  startAt: Date;
}

/** An event that is to be emitted. */
export type ReplayEvent = {
  [K in EventKind]: { kind: K; event: EventInput<K> & { id: string } };
}[EventKind];

/** All that one conversation becomes. */
export interface Records {
  userId: string;
  /** `sessionId` of the session of all conversations about the same task. */
  task: string;
  session: {
    id: string;
    sessionId: string;
    startedAt: Date;
    endedAt: Date;
    qualityScore: number;
    context: { taskId: number; trial: number };
  };
  memories: { id: string; type: string; key: string; call: ToolCall }[];
  /** What the transitions are of; there is none without a transition. */
  state: { id: string; moduleId: string; state: object; stateHash: string } | undefined;
  events: ReplayEvent[];
  /** Tools of the transitions, by the transition's id. */
  tools: Map<string, string>;
  /** Calls that look something up but do not say what, so that no memory can be named. */
  callsWithoutMemory: number;
}

/** Tools that look something up: the kind of memory that a call reads, and the argument naming it. */
const LOOKUPS: ReadonlyMap<string, { type: string; argument: string }> = new Map([
  ['get_user_details', { type: 'user', argument: 'user_id' }],
  ['get_reservation_details', { type: 'reservation', argument: 'reservation_id' }],
]);

/** Tools that change a reservation. */
const CHANGES: ReadonlySet<string> = new Set([
  'book_reservation',
  'cancel_reservation',
  'update_reservation_flights',
  'update_reservation_baggages',
  'update_reservation_passengers',
]);

/** Conversations carry no times: they start a minute apart, and their messages come every second. */
const CONVERSATION_MS = 60_000;
const MESSAGE_MS = 1000;

/** A uuid (version 5) of a stable name, such as `airline-0-0/event/3`. */
export const idOf = (name: string): string => uuidv5(name, NAMESPACE);

/** A call of a tool, and its stable name. */
interface ToolCall {
  name: string;
  id: string | null | undefined;
  tool: string;
  args: {};
  occurredAt: Date;
}

/**
 * Maps a conversation to rows and events. Ids come from places (`airline-0-0/event/3`), not from
 * the trace's own call ids, which real agents use more than once in a conversation.
 *
 * @param index - place of the conversation in its file, from 0
 */
export function recordsOf(conversation: Conversation, index: number, naming: Naming): Records {
  const { messages, reward, task_id: taskId, trial, user_id: userId } = conversation;
  const task = `${naming.source}-${taskId}`;
  const sessionId = `${task}-${trial}`;
  const start = naming.startAt.getTime() + index * CONVERSATION_MS;
  const at = (sequence: number) => new Date(start + sequence * MESSAGE_MS);
  const endedAt = at(Math.max(0, messages.length - 1));

  const calls = messages.flatMap((message, sequence) =>
    (message.tool_calls ?? []).map((call, place): ToolCall => ({
      name: `${sessionId}/call/${sequence}.${place}`,
      id: call.id,
      tool: call.function?.name ?? '',
      args: readArguments(call.function?.arguments),
      occurredAt: at(sequence),
    })),
  );
  const memories = calls.flatMap(memoryOf);
  const changes = calls.filter(({ tool }) => CHANGES.has(tool));
  const state = changes.length > 0 ? stateOf(sessionId, userId) : undefined;
  const figures = { reward, turns: messages.length, tool_calls: calls.length };

  return {
    userId,
    task,
    session: {
      id: idOf(sessionId),
      sessionId,
      startedAt: at(0),
      endedAt,
      qualityScore: reward,
      context: { taskId, trial },
    },
    memories,
    state,
    events: [
      ...messages.map((message, sequence): ReplayEvent => ({
        kind: 'session-event',
        event: {
          id: idOf(`${sessionId}/event/${sequence}`),
          occurredAt: at(sequence),
          sessionId,
          eventType: EVENT_TYPES[message.role],
          eventData: message,
          sequence,
        },
      })),
      ...memories.map(({ id, call }): ReplayEvent => ({
        kind: 'memory-access',
        event: {
          id: idOf(`${call.name}/access`),
          occurredAt: call.occurredAt,
          memoryId: id,
          accessType: 'read',
          accessedBy: naming.agentId,
          accessorType: 'agent',
          context: sessionId,
        },
      })),
      ...changes.map((call): ReplayEvent => ({
        kind: 'transition',
        event: {
          id: transitionId(call),
          occurredAt: call.occurredAt,
          stateId: stateId(sessionId),
          triggerType: 'agent_decision',
          triggerId: call.id || null,
          transitionData: call.args,
        },
      })),
      ...Object.entries(figures).map(([metricType, metricValue]): ReplayEvent => ({
        kind: 'metrics',
        event: {
          id: idOf(`${sessionId}/metric/${metricType}`),
          occurredAt: endedAt,
          scope: 'session',
          sessionId,
          metricType,
          metricValue,
        },
      })),
    ],
    tools: new Map(changes.map((call) => [transitionId(call), call.tool])),
    callsWithoutMemory: calls.filter(({ tool }) => LOOKUPS.has(tool)).length - memories.length,
  };
}

const transitionId = (call: ToolCall) => idOf(`${call.name}/transition`);
const stateId = (sessionId: string) => idOf(`${sessionId}/state`);

function stateOf(sessionId: string, userId: string): Records['state'] {
  const state = { userId };
  return {
    id: stateId(sessionId),
    moduleId: `${sessionId}/reservations`,
    state,
    stateHash: sha256Hex(canonicalJson(state)),
  };
}

/** The memory that a call looks up; none where its arguments do not say which. */
function memoryOf(call: ToolCall): Records['memories'] {
  const lookup = LOOKUPS.get(call.tool);
  if (!lookup) return [];
  const key = (call.args as Record<string, unknown>)[lookup.argument];
  if (typeof key !== 'string' || key === '' || key.length > MAX_KEY_LENGTH) return [];
  return [{ id: `${lookup.type}:${key}`, type: lookup.type, key, call }];
}

/** A user's or reservation's name is short; anything longer is a model's mistake. */
const MAX_KEY_LENGTH = 256;

/** Arguments are JSON as text; what a model wrote that is not JSON, or null, stays as it is. */
function readArguments(value: unknown): {} {
  if (typeof value !== 'string') return value ?? {};
  try {
    return JSON.parse(value) ?? value;
  } catch {
    return value;
  }
}
