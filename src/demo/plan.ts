import { v7 as uuidv7 } from 'uuid';

import type { EventInput, EventKind } from '../queues/events.ts';
import { Dice } from './dice.ts';

/** What a demo is made from; equal settings make equal events, to the bit. */
export interface PlanSettings {
  seed: number;
  /** Different events, over all runtimes. */
  events: number;
  runtimes: number;
  /** When the events occur. Default: from the same moment on in every plan. */
  clock?: PlanClock;
}

/** How a place becomes a time. */
export interface PlanClock {
  /** Of the first event, in milliseconds since 1970. */
  beginsAt: number;
  /** From an event of a runtime to its next one. */
  msPerEvent: number;
  /** Events come up to this many milliseconds later than their place says, so that their order tells nothing. */
  jitterMs: number;
  /** Whether an event is emitted when it occurs, rather than as soon as may be. */
  isLive: boolean;
}

/** An event with its id and time. */
export type PlannedEvent = {
  [K in EventKind]: { kind: K; event: EventInput<K> & { id: string; occurredAt: Date } };
}[EventKind];

/** Places an event: the index-th of a runtime. */
export interface Place {
  runtime: number;
  index: number;
}

/** One turn of an agent, event by event; a session is a row of turns. */
const TURN = [
  ['session-event', 'user_input'],
  ['memory-access', 'search'],
  ['memory-access', 'read'],
  ['memory-access', 'read'],
  ['session-event', 'reasoning'],
  ['memory-access', 'read'],
  ['session-event', 'tool_call'],
  ['session-metric', 'latency_ms'],
  ['memory-access', 'read'],
  ['transition', 'agent_decision'],
  ['session-event', 'tool_result'],
  ['memory-access', 'search'],
  ['memory-access', 'read'],
  ['session-event', 'tool_call'],
  ['memory-access', 'read'],
  ['session-event', 'agent_response'],
  ['memory-access', 'write'],
  ['session-metric', 'tokens'],
  ['transition', 'turn_end'],
  ['agent-metric', 'turns_solved'],
] as const;

export const EVENTS_PER_SESSION = 24 * TURN.length;
export const MEMORIES_PER_SESSION = 3;
export const STATES_PER_SESSION = 2;
export const AGENTS_PER_RUNTIME = 3;

/** Shared by all runtimes, so that these race for the same chains of states. */
export const MODULES = ['planner', 'retriever', 'critic', 'writer'] as const;

/** A session and the three that it delegates to. */
export const SESSIONS_PER_FAMILY = 4;

/** The share of events that are emitted twice. */
const ECHO_SHARE = 0.02;

/** The share of accesses that go to a memory of another runtime. */
const FOREIGN_SHARE = 0.2;

const FIXED_CLOCK: PlanClock = {
  beginsAt: Date.UTC(2025, 0, 6, 9),
  msPerEvent: 40,
  jitterMs: 2000,
  isLive: false,
};

/** Events a second of all runtimes in a plan of just now: more than any machine emits. */
const RECENT_RATE = 20_000;

/**
 * The clock of a plan that has just been lived through, so that its lag is one that an operator might
 * see. No event is of the future, in which no session could end.
 */
export function recentClock({ events, runtimes }: PlanSettings, now: number): PlanClock {
  const msPerEvent = (1000 * runtimes) / RECENT_RATE;
  const { jitterMs } = FIXED_CLOCK;
  const beginsAt = now - jitterMs - Math.ceil(events / runtimes) * msPerEvent;
  return { beginsAt, msPerEvent, jitterMs, isLive: false };
}

/** Events a second of all runtimes in a plan that is lived through: two cores keep up with it, and a board. */
const LIVE_RATE = 2000;

/** Milliseconds in which the processes start. */
const START_MS = 3000;

/** The clock of a plan that is lived through from now on: what a board then shows as lag is what it is. */
export const liveClock = ({ runtimes }: PlanSettings, now: number): PlanClock => ({
  beginsAt: now + START_MS,
  msPerEvent: (1000 * runtimes) / LIVE_RATE,
  jitterMs: 50,
  isLive: true,
});

/**
 * What the runtimes do, as a pure function of the settings and an event's place. Every process can
 * therefore tell every event, which is how one runtime emits another's a second time.
 */
export class Plan {
  readonly settings: PlanSettings;
  readonly #clock: PlanClock;

  constructor(settings: PlanSettings) {
    this.settings = settings;
    this.#clock = settings.clock ?? FIXED_CLOCK;
  }

  /** Events that begin in `runtime`; runtimes differ by one at most. */
  eventsOf(runtime: number): number {
    const { events, runtimes } = this.settings;
    return Math.floor(events / runtimes) + (runtime < events % runtimes ? 1 : 0);
  }

  sessionsOf(runtime: number): number {
    return Math.ceil(this.eventsOf(runtime) / EVENTS_PER_SESSION);
  }

  /**
   * @param stateId - tells the id of the runtime's n-th module state, which the database chose
   */
  eventAt({ runtime, index }: Place, stateId: (ordinal: number) => string): PlannedEvent {
    const dice = new Dice('event', this.settings.seed, runtime, index);
    const occurredAt = new Date(this.occursAt(index) + dice.below(this.#clock.jitterMs));
    const id = uuidv7({ msecs: occurredAt.getTime(), random: dice.bytes(16) });
    const session = Math.floor(index / EVENTS_PER_SESSION);
    const [step, label] = stepAt(index);
    const common = { id, occurredAt };
    switch (step) {
      case 'memory-access':
        return {
          kind: 'memory-access',
          event: {
            ...common,
            memoryId: this.#pickMemory(dice, runtime, session),
            accessType: label,
            accessedBy: agentId(runtime, session),
            accessorType: 'agent',
            context: `turn ${Math.floor(index / TURN.length)}`,
            usefulness: dice.below(101) / 100,
          },
        };
      case 'transition':
        return {
          kind: 'transition',
          event: {
            ...common,
            stateId: stateId(session * STATES_PER_SESSION + dice.below(STATES_PER_SESSION)),
            triggerType: label,
            transitionData: { reason: 'the plan has a next step', step: index },
            newValues: { confidence: dice.below(101) / 100 },
          },
        };
      case 'session-event':
        return {
          kind: 'session-event',
          event: {
            ...common,
            sessionId: sessionId(runtime, session),
            eventType: label,
            eventData: { text: `what the ${label} of step ${index} said`, tokens: dice.below(400) },
            sequence: index % EVENTS_PER_SESSION,
            duration: dice.below(5000),
          },
        };
      // Metric values are whole numbers: their sums are exact in any order.
      case 'session-metric':
        return {
          kind: 'metrics',
          event: {
            ...common,
            scope: 'session',
            sessionId: sessionId(runtime, session),
            metricType: label,
            metricValue: dice.below(2000),
          },
        };
      case 'agent-metric':
        return {
          kind: 'metrics',
          event: {
            ...common,
            scope: 'agent',
            agentId: agentId(runtime, session),
            metricType: label,
            metricValue: dice.below(2),
            timeframe: 'turn',
          },
        };
    }
  }

  /** When the index-th event of a runtime occurs at the earliest, in milliseconds since 1970. */
  occursAt(index: number): number {
    const { beginsAt, msPerEvent } = this.#clock;
    return Math.floor(beginsAt + index * msPerEvent);
  }

  /** Milliseconds until the index-th event of a runtime is to be emitted. */
  waitMs(index: number): number {
    const { isLive, jitterMs } = this.#clock;
    return isLive ? Math.max(0, this.occursAt(index) + jitterMs - Date.now()) : 0;
  }

  /** What is emitted again after the event at this place: itself at once, or another's earlier one. */
  echoAfter({ runtime, index }: Place): Place | undefined {
    const dice = new Dice('echo', this.settings.seed, runtime, index);
    if (dice.next() >= ECHO_SHARE) return undefined;
    const other = dice.below(this.settings.runtimes);
    const earlier = dice.below(Math.min(index, this.eventsOf(other)));
    // Only the runtime itself knows the ids of its states.
    const isItself = index === 0 || dice.next() < 0.5 || stepAt(earlier)[0] === 'transition';
    return isItself ? { runtime, index } : { runtime: other, index: earlier };
  }

  /** Any memory of its own or the neighbour's so far; the older one is, the more popular. */
  #pickMemory(dice: Dice, runtime: number, session: number): string {
    const neighbour = (runtime + 1) % this.settings.runtimes;
    const owner = dice.next() < FOREIGN_SHARE ? neighbour : runtime;
    const sessions = Math.min(session + 1, this.sessionsOf(owner));
    return memoryId(owner, Math.floor(sessions * MEMORIES_PER_SESSION * dice.next() ** 3));
  }
}

export const userId = (runtime: number) => `user-${runtime}`;
export const agentId = (runtime: number, session: number) =>
  `agent-${runtime}-${session % AGENTS_PER_RUNTIME}`;
export const sessionId = (runtime: number, session: number) => `session-${runtime}-${session}`;
export const memoryId = (runtime: number, ordinal: number) => `memory-${runtime}-${ordinal}`;

function stepAt(index: number): (typeof TURN)[number] {
  return TURN[index % TURN.length] as (typeof TURN)[number];
}
