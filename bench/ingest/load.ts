import { Dice } from '../../src/demo/dice.ts';
import {
  AGENTS_PER_RUNTIME,
  agentId,
  Plan,
  sessionId,
  STATES_PER_SESSION,
  type PlannedEvent,
} from '../../src/demo/plan.ts';

/** What is emitted; equal loads are equal to the bit, in every process. */
export interface Load {
  /** Over all producers, who take turns: event n is the (n / PRODUCERS)-th of producer n % PRODUCERS. */
  events: number;
  memories: number;
}

/** Producer processes. */
export const PRODUCERS = 2;
const SEED = 1;

export const memoryId = (n: number) => `memory-${n}`;
export const stateId = (producer: number, n: number) => `state-${producer}-${n}`;

/** A producer's part of the load, in the kinds and sizes of `npm run demo`. */
export function* eventsOf(producer: number, { events, memories }: Load): Generator<PlannedEvent> {
  const plan = new Plan({ seed: SEED, events, runtimes: PRODUCERS });
  for (let index = 0; index < plan.eventsOf(producer); index++) {
    const planned = plan.eventAt({ runtime: producer, index }, (n) => stateId(producer, n));
    // The demo has three memories a session; here they are as many as asked for, each as likely.
    if (planned.kind === 'memory-access') {
      planned.event.memoryId = memoryId(new Dice('memory', producer, index).below(memories));
    }
    yield planned;
  }
}

/** Ids of all that the load refers to. */
export function parentsOf(load: Load) {
  const plan = new Plan({ seed: SEED, events: load.events, runtimes: PRODUCERS });
  const parents = {
    agents: [] as string[],
    sessions: [] as string[],
    states: [] as string[],
    memories: Array.from({ length: load.memories }, (_, n) => memoryId(n)),
  };
  for (let producer = 0; producer < PRODUCERS; producer++) {
    const sessions = plan.sessionsOf(producer);
    for (let n = 0; n < AGENTS_PER_RUNTIME; n++) parents.agents.push(agentId(producer, n));
    for (let n = 0; n < sessions; n++) parents.sessions.push(sessionId(producer, n));
    for (let n = 0; n < sessions * STATES_PER_SESSION; n++) {
      parents.states.push(stateId(producer, n));
    }
  }
  return parents;
}
