import { setTimeout as sleep } from 'node:timers/promises';

import type { PrismaClient } from '../database/client.ts';
import type { Producer } from '../producers/producer.ts';
import { EnhancedSchemaService } from '../services/enhancedSchemaService.ts';
import { Ledger, type Claim } from './ledger.ts';
import {
  agentId,
  AGENTS_PER_RUNTIME,
  EVENTS_PER_SESSION,
  MEMORIES_PER_SESSION,
  memoryId,
  MODULES,
  sessionId,
  SESSIONS_PER_FAMILY,
  STATES_PER_SESSION,
  userId,
  type Place,
  type Plan,
} from './plan.ts';

/** One session in so many begins with events whose session and memories come only later. */
const LATE_PARENTS_EVERY = 20;

/** These many events come first then; no transition is among them, which needs a state's id. */
const EARLY_EVENTS = 5;

/** Long enough for idle workers to have met the events and found no parent. */
const PARENTS_LATE_MS = 150;

export interface SimulationOptions {
  plan: Plan;
  /** From 0. */
  runtime: number;
  producer: Producer;
  /** Which `EnhancedSchemaService` uses, too. */
  prisma: PrismaClient;
}

interface SessionKey {
  id: string;
  /** Its `sessionId`. */
  name: string;
}

/** An agent runtime at work: session after session, each with those that it delegates to. */
export class Simulation {
  readonly #options: SimulationOptions;
  readonly #ledger = new Ledger();
  readonly #stateIds: string[] = [];

  constructor(options: SimulationOptions) {
    this.#options = options;
  }

  /** Events emitted so far, and since when. */
  get progress(): { emitted: number; emittedFrom: number } {
    return { emitted: this.#ledger.claim.emitted, emittedFrom: this.#ledger.emittedFrom };
  }

  /** Runs to the end; when it resolves, the queue has every event. */
  async run(): Promise<Claim> {
    const { plan, runtime, producer } = this.#options;
    await this.#createAgents();
    const sessions = plan.sessionsOf(runtime);
    for (let root = 0; root < sessions; root += SESSIONS_PER_FAMILY) {
      const parent = await this.#beginSession(root);
      const children: Promise<void>[] = [];
      for (let child = root + 1; child < Math.min(root + SESSIONS_PER_FAMILY, sessions); child++) {
        children.push(this.#beginSession(child, parent).then(() => this.#endSession(child)));
      }
      await Promise.all(children);
      await this.#endSession(root);
    }
    await producer.flush();
    return this.#ledger.claim;
  }

  /** @returns the key of the session's row */
  async #beginSession(session: number, parent?: SessionKey): Promise<SessionKey> {
    const { plan, runtime, producer } = this.#options;
    const first = session * EVENTS_PER_SESSION;
    const end = Math.min(first + EVENTS_PER_SESSION, plan.eventsOf(runtime));
    await sleep(plan.waitMs(first));
    const early = session % LATE_PARENTS_EVERY === 0 ? Math.min(first + EARLY_EVENTS, end) : first;
    await this.#emit(first, early);
    if (early > first) {
      await producer.flush();
      await sleep(PARENTS_LATE_MS);
    }
    const key = await this.#createSession(session, parent);
    await Promise.all([
      ...ordinals(session, MEMORIES_PER_SESSION).map((n) => this.#createMemory(n, session)),
      ...ordinals(session, STATES_PER_SESSION).map((n) => this.#createState(n, session)),
    ]);
    await producer.ready();
    await this.#emit(early, end);
    return key;
  }

  async #emit(from: number, to: number): Promise<void> {
    const { plan, runtime } = this.#options;
    for (let index = from; index < to; index++) {
      const waitMs = plan.waitMs(index);
      if (waitMs > 0) await sleep(waitMs);
      const place = { runtime, index };
      this.#emitOne(place, false);
      const echo = plan.echoAfter(place);
      if (echo) this.#emitOne(echo, true);
    }
  }

  #emitOne(place: Place, isDuplicate: boolean): void {
    const planned = this.#options.plan.eventAt(place, (ordinal) => {
      const id = this.#stateIds[ordinal];
      if (id === undefined) throw new Error(`state ${ordinal} does not exist yet`);
      return id;
    });
    this.#options.producer.emit(planned.kind, planned.event);
    this.#ledger.emitted(planned, isDuplicate);
  }

  async #createAgents(): Promise<void> {
    const { prisma, runtime } = this.#options;
    await prisma.user.create({ data: { id: userId(runtime) } });
    this.#ledger.row('User');
    for (let agent = 0; agent < AGENTS_PER_RUNTIME; agent++) {
      const id = agentId(runtime, agent);
      await prisma.aI_Agent.create({
        data: {
          id,
          userId: userId(runtime),
          name: `Agent ${agent} of runtime ${runtime}`,
          capabilities: ['search', 'write'],
          configuration: { temperature: 0.2 },
        },
      });
      this.#ledger.row('AI_Agent');
      this.#ledger.figure('agentSessions', id, 0);
    }
  }

  async #createSession(session: number, parent: SessionKey | undefined): Promise<SessionKey> {
    const { plan, runtime } = this.#options;
    const [agent, name] = [agentId(runtime, session), sessionId(runtime, session)];
    const startedAt = new Date(plan.occursAt(session * EVENTS_PER_SESSION));
    const { id } = await EnhancedSchemaService.createSession({
      sessionId: name,
      userId: userId(runtime),
      agentId: agent,
      startedAt,
      sessionPurpose: parent ? 'a part of the answer' : 'answer a question',
      sessionTags: ['demo'],
      sessionSource: parent ? 'agent' : 'user',
      parentSessionId: parent?.id,
    });
    this.#ledger.row('AgentSession');
    this.#ledger.figure('agentSessions', agent, 1);
    this.#ledger.figure('agentLastActive', agent, startedAt.getTime());
    for (const figure of ['sessionEvents', 'sessionMetrics', 'sessionChildren'] as const) {
      this.#ledger.figure(figure, name, 0);
    }
    if (parent) this.#ledger.figure('sessionChildren', parent.name, 1);
    return { id, name };
  }

  async #endSession(session: number): Promise<void> {
    const name = sessionId(this.#options.runtime, session);
    await EnhancedSchemaService.endSession({ sessionId: name, qualityScore: 0.9 });
    this.#ledger.figure('sessionsEnded', name, 1);
  }

  async #createMemory(ordinal: number, session: number): Promise<void> {
    const { runtime } = this.#options;
    const id = memoryId(runtime, ordinal);
    await EnhancedSchemaService.createMemory({
      id,
      userId: userId(runtime),
      agentId: agentId(runtime, session),
      sessionId: sessionId(runtime, session),
      type: 'fact',
      content: { text: `what session ${session} learned` },
      importance: 0.5,
    });
    this.#ledger.row('InteractionMemory');
    this.#ledger.figure('memoryAccesses', id, 0);
  }

  async #createState(ordinal: number, session: number): Promise<void> {
    const { runtime } = this.#options;
    const moduleId = MODULES[ordinal % MODULES.length] as string;
    const created = await EnhancedSchemaService.upsertModuleState({
      moduleId,
      sessionId: sessionId(runtime, session),
      state: { runtime, ordinal, goal: 'answer' },
      version: '1.0.0',
    });
    this.#stateIds[ordinal] = created.id;
    this.#ledger.row('ModuleState');
    this.#ledger.figure('moduleStates', moduleId, 1);
    this.#ledger.figure('stateTransitions', created.id, 0);
  }
}

/** The numbers of what a session has `perSession` of, counted over the runtime's sessions. */
function ordinals(session: number, perSession: number): number[] {
  return Array.from({ length: perSession }, (_, n) => session * perSession + n);
}
