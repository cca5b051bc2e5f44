import type { PrismaClient } from '../database/client.ts';
import type {
  AgentSession,
  AgentVersion,
  InteractionMemory,
  MemoryAccess,
  MemoryAnnotation,
  ModuleState,
  SessionEvent,
  SessionMetric,
  StateTransition,
} from '../generated/prisma/client.ts';
import * as agents from './agents.ts';
import { closeClient, getClient, useClient } from './client.ts';
import * as memories from './memories.ts';
import * as moduleStates from './moduleStates.ts';
import * as sessionEvents from './sessionEvents.ts';
import * as sessions from './sessions.ts';

export type {
  AgentWithMetrics,
  CreateAgentVersionInput,
  UpdateAgentMetricsInput,
} from './agents.ts';
export type {
  ApplyMemoryAnnotationInput,
  CreateMemoryAnnotationInput,
  CreateMemoryInput,
  RecordMemoryAccessInput,
} from './memories.ts';
export type { RecordStateTransitionInput, UpsertModuleStateInput } from './moduleStates.ts';
export type { CreateSessionEventInput, CreateSessionMetricInput } from './sessionEvents.ts';
export type { CreateSessionInput, EndSessionInput, SetParentSessionInput } from './sessions.ts';

/**
 * Reads and writes the enhanced schema directly, without the queues. Every call is one
 * transaction and returns the row as Prisma's model has it.
 *
 * Common to all methods:
 * - Times are a `Date` or an ISO 8601 text with a zone. Scores run from 0 to 1. An optional field
 *   may be left out or null. JSON fields take any JSON value but null.
 * - U+0000 and lone surrogates, which PostgreSQL cannot store, are replaced by U+FFFD.
 * - `InvalidArgumentError`: a field is unknown, of the wrong type or out of its range.
 * - `NotFoundError`: an id that is referred to does not exist; `field` and `id` say which.
 * - `UnavailableError`: PostgreSQL cannot be reached. A call that was given an `id` may simply be
 *   repeated.
 * - `ConfigError`: no client was given to `use`, and the configuration names no database.
 */
export class EnhancedSchemaService {
  /**
   * Makes the service work on a client of the caller's, who also closes it; `undefined` brings
   * back the service's own one, which is opened on first use from `DATABASE_URL`.
   *
   * @returns the client that was set before
   *
   * @example const earlier = EnhancedSchemaService.use(prisma);
   */
  static use(prisma: PrismaClient | undefined): PrismaClient | undefined {
    return useClient(prisma);
  }

  /**
   * Closes the client that the service opened itself; one that was given to `use` stays open. A
   * later call opens another. A script may also just end: idle connections do not hold it up.
   *
   * @example await EnhancedSchemaService.disconnect();
   */
  static async disconnect(): Promise<void> {
    await closeClient();
  }

  /**
   * Creates a session, and counts it into its agent's `totalSessions` and `lastActiveAt`.
   *
   * @param input - `sessionId` is the runtime's own name; `id` defaults to a cuid, `status` to
   *   `active`, `startedAt` to now. `userId`, `agentId` and `parentSessionId` (a session's `id`)
   *   must exist. `sessionSource` defaults to `user`; purpose and tags to those of the `context`.
   * @throws {DuplicateError} when the `sessionId` (or `id`) is taken
   * @throws {ConflictError} when it would be its own parent
   *
   * @example await EnhancedSchemaService.createSession({ sessionId: 's-1', agentId: 'agent-id' });
   */
  static async createSession(input: sessions.CreateSessionInput): Promise<AgentSession> {
    return sessions.createSession(await getClient(), input);
  }

  /**
   * Moves a session, with all that is below it, under another one; `parentSessionId: null` makes
   * it a root.
   *
   * @param input - `sessionId` is the session's `id` or `sessionId`, `parentSessionId` an `id`
   * @throws {ConflictError} when the parent is the session itself or one of its descendants
   *
   * @example await EnhancedSchemaService.setParentSession({ sessionId: 's-2', parentSessionId: parent.id });
   */
  static async setParentSession(input: sessions.SetParentSessionInput): Promise<AgentSession> {
    return sessions.setParentSession(await getClient(), input);
  }

  /**
   * Ends a session. Ending it again keeps the first `endedAt`, and keeps whatever is not given;
   * a score that comes in later may so be added.
   *
   * @param input - `sessionId` is the session's `id` or `sessionId`; `status` defaults to
   *   `completed`, `endedAt` to now
   *
   * @example await EnhancedSchemaService.endSession({ sessionId: 's-1', qualityScore: 0.9 });
   */
  static async endSession(input: sessions.EndSessionInput): Promise<AgentSession> {
    return sessions.endSession(await getClient(), input);
  }

  /**
   * Records a measurement of a session, exactly once: with an `id` (uuid) that is stored already
   * it returns the stored row and changes nothing.
   *
   * @param input - `sessionId` is the session's `id` or `sessionId` (the row holds the `id`);
   *   `metricValue` is finite, in the unit that `metricType` implies
   *
   * @example await EnhancedSchemaService.createSessionMetric({ sessionId: 's-1', metricType: 'latency_ms', metricValue: 12 });
   */
  static async createSessionMetric(
    input: sessionEvents.CreateSessionMetricInput,
  ): Promise<SessionMetric> {
    return sessionEvents.createSessionMetric(await getClient(), input);
  }

  /**
   * Records what happened in a session, exactly once: with an `id` (uuid) that is stored already
   * it returns the stored row and changes nothing.
   *
   * @param input - `sessionId` is the session's `id` or `sessionId`; `sequence` defaults to one
   *   above the session's highest, from 1, and callers at once get different ones; `duration` is
   *   in milliseconds
   *
   * @example await EnhancedSchemaService.createSessionEvent({ sessionId: 's-1', eventType: 'tool_call', eventData: { tool: 'search' } });
   */
  static async createSessionEvent(
    input: sessionEvents.CreateSessionEventInput,
  ): Promise<SessionEvent> {
    return sessionEvents.createSessionEvent(await getClient(), input);
  }

  /**
   * Makes a state the module's newest one. When the newest has the same content (whatever the
   * order of its keys) and the same version, that row is returned unchanged, its other fields
   * too; otherwise a row is appended whose `previousStateId` is the newest. A → B → A gives three
   * rows, and callers at once never fork the chain.
   *
   * @param input - `stateType` defaults to `module_state`; `sessionId` is a name that need not exist
   *
   * @example await EnhancedSchemaService.upsertModuleState({ moduleId: 'planner', state: { step: 1 }, version: '1.0.0' });
   */
  static async upsertModuleState(input: moduleStates.UpsertModuleStateInput): Promise<ModuleState> {
    return moduleStates.upsertModuleState(await getClient(), input);
  }

  /**
   * Records why a state changed, exactly once: with an `id` (uuid) that is stored already it
   * returns the stored row and changes nothing.
   *
   * @param input - `stateId` is the `id` of a module state
   *
   * @example await EnhancedSchemaService.recordStateTransition({ stateId: state.id, triggerType: 'user_action', transitionData: { step: 2 } });
   */
  static async recordStateTransition(
    input: moduleStates.RecordStateTransitionInput,
  ): Promise<StateTransition> {
    return moduleStates.recordStateTransition(await getClient(), input);
  }

  /**
   * Records measurements of an agent, each exactly once by its `id` (uuid), all or none. A metric
   * `success_rate`, or `successRate` as a short form of one taken now, also moves the agent's
   * `successRate` to the latest one by (occurredAt, id).
   *
   * @param input - at least one of `metrics` (at most 1,000) and `successRate` (0..1)
   * @returns the agent, with the metrics of this call in the order given, `successRate` last
   *
   * @example await EnhancedSchemaService.updateAgentMetrics({ agentId: 'agent-id', metrics: [{ metricType: 'tokens', metricValue: 812 }], successRate: 0.95 });
   */
  static async updateAgentMetrics(
    input: agents.UpdateAgentMetricsInput,
  ): Promise<agents.AgentWithMetrics> {
    return agents.updateAgentMetrics(await getClient(), input);
  }

  /**
   * Creates a version of an agent. With `isActive: true` it becomes the one active version: the
   * active one before it is deactivated at the same time, and the agent's `versionHistory` (its
   * last 50 activations) gains `{ versionNumber, activatedAt }`.
   *
   * @param input - `createdById` is a user's id; `isActive` defaults to false
   * @throws {DuplicateError} when the agent has this `versionNumber` already
   *
   * @example await EnhancedSchemaService.createAgentVersion({ agentId: 'agent-id', versionNumber: '1.1.0', changes: {}, isActive: true });
   */
  static async createAgentVersion(input: agents.CreateAgentVersionInput): Promise<AgentVersion> {
    return agents.createAgentVersion(await getClient(), input);
  }

  /**
   * Creates a memory, with no access counted yet.
   *
   * @param input - `userId` and `agentId` must exist, `sessionId` is a name that need not;
   *   `importance` is finite; `confidence` (0..1) defaults to it, brought into that range,
   *   `memoryType` to what `type` says, `sourceType` to `user_input`, `verificationStatus` to
   *   `unverified`
   * @throws {DuplicateError} when the `id` is taken
   *
   * @example await EnhancedSchemaService.createMemory({ userId: 'user-id', agentId: 'agent-id', type: 'fact', content: { likes: 'tea' }, importance: 0.8 });
   */
  static async createMemory(input: memories.CreateMemoryInput): Promise<InteractionMemory> {
    return memories.createMemory(await getClient(), input);
  }

  /**
   * Records that a memory was used, exactly once, and moves its `accessCount` by one and its
   * `lastAccessedAt` to the latest: with an `id` (uuid) that is stored already it returns the
   * stored row and changes nothing.
   *
   * @param input - `usefulness` is 0..1
   *
   * @example await EnhancedSchemaService.recordMemoryAccess({ memoryId: memory.id, accessType: 'read', accessedBy: 'agent-id', accessorType: 'agent' });
   */
  static async recordMemoryAccess(input: memories.RecordMemoryAccessInput): Promise<MemoryAccess> {
    return memories.recordMemoryAccess(await getClient(), input);
  }

  /**
   * Adds a note to a memory, exactly once: with an `id` (uuid) that is stored already it returns
   * the stored row and changes nothing.
   *
   * @param input - `createdById` is a user's or an agent's id and is not checked; with
   *   `isApplied: true` (default false) it counts as applied from now on
   *
   * @example await EnhancedSchemaService.createMemoryAnnotation({ memoryId: memory.id, annotationType: 'correction', content: { value: false } });
   */
  static async createMemoryAnnotation(
    input: memories.CreateMemoryAnnotationInput,
  ): Promise<MemoryAnnotation> {
    return memories.createMemoryAnnotation(await getClient(), input);
  }

  /**
   * Marks an annotation as applied. Applying it again keeps the first `appliedAt`.
   *
   * @param input - `appliedAt` defaults to now
   *
   * @example await EnhancedSchemaService.applyMemoryAnnotation({ annotationId: annotation.id });
   */
  static async applyMemoryAnnotation(
    input: memories.ApplyMemoryAnnotationInput,
  ): Promise<MemoryAnnotation> {
    return memories.applyMemoryAnnotation(await getClient(), input);
  }
}
