// The examples of docs/SCHEMA_MIGRATION_GUIDE.md, one after the other, on a user and an agent that
// are made when they are missing. Names carry the run's own ending, so it may be run again.
//
//   npx ts-node src/services/examples/enhancedSchemaExample.ts

import { transaction } from '../attempt.ts';
import { getClient } from '../client.ts';
import { EnhancedSchemaService } from '../enhancedSchemaService.ts';

const userId = 'user-id';
const agentId = 'agent-id';
const run = Date.now().toString(36);

async function ensureUserAndAgent(): Promise<void> {
  const agent = {
    id: agentId,
    userId,
    name: 'Example agent',
    capabilities: ['chat'],
    configuration: { temperature: 0.7 },
  };
  await transaction(await getClient(), async (tx) => {
    await tx.user.createMany({ data: [{ id: userId }], skipDuplicates: true });
    await tx.aI_Agent.createMany({ data: [agent], skipDuplicates: true });
  });
}

async function createSessionHierarchy(): Promise<void> {
  const parent = await EnhancedSchemaService.createSession({
    sessionId: `parent-${run}`,
    userId,
    agentId,
    status: 'active',
    sessionPurpose: 'Parent task',
    sessionTags: ['important', 'complex'],
  });
  const child = await EnhancedSchemaService.createSession({
    sessionId: `child-${run}`,
    userId,
    agentId,
    status: 'active',
    sessionPurpose: 'Subtask',
    parentSessionId: parent.id,
  });
  await EnhancedSchemaService.createSessionEvent({
    sessionId: child.sessionId,
    eventType: 'tool_call',
    eventData: { tool: 'search', query: 'dark mode' },
    duration: 42,
  });
  await EnhancedSchemaService.createSessionMetric({
    sessionId: child.sessionId,
    metricType: 'tokens',
    metricValue: 812,
  });
  const ended = await EnhancedSchemaService.endSession({
    sessionId: child.sessionId,
    qualityScore: 0.9,
  });
  print('A session hierarchy', {
    parent: `${parent.sessionId}, tagged ${parent.sessionTags.join(' and ')}`,
    child: `${ended.sessionId}, ${ended.status} with quality ${ended.qualityScore}`,
  });
}

async function trackModuleState(): Promise<void> {
  const moduleId = `module-${run}`;
  const first = await EnhancedSchemaService.upsertModuleState({
    moduleId,
    state: { step: 1 },
    version: '1.0.0',
    stateType: 'workflow_progress',
  });
  const second = await EnhancedSchemaService.upsertModuleState({
    moduleId,
    state: { step: 2 },
    version: '1.0.0',
    stateType: 'workflow_progress',
  });
  const transition = await EnhancedSchemaService.recordStateTransition({
    stateId: second.id,
    triggerType: 'user_action',
    transitionData: { step: 'advanced' },
    previousValues: { step: 1 },
    newValues: { step: 2 },
  });
  print('A module state and the next', {
    first: `${first.id}, hash ${first.stateHash?.slice(0, 12)}`,
    second: `${second.id}, after ${second.previousStateId}`,
    because: transition.triggerType,
  });
}

async function versionAgent(): Promise<void> {
  const version = await EnhancedSchemaService.createAgentVersion({
    agentId,
    versionNumber: `1.1.0-${run}`,
    changes: {
      systemPrompt: 'Updated for better response quality',
      configuration: 'Adjusted temperature parameter',
    },
    createdById: userId,
    isActive: true,
  });
  print('A version of an agent', {
    version: version.versionNumber,
    'active since': version.activatedAt?.toISOString(),
  });
}

async function measureAgent(): Promise<void> {
  const agent = await EnhancedSchemaService.updateAgentMetrics({
    agentId,
    metrics: [{ metricType: 'response_time_ms', metricValue: 230, timeframe: 'daily' }],
    successRate: 0.95,
  });
  print('Metrics of an agent', {
    recorded: agent.metrics
      .map(({ metricType, metricValue }) => `${metricType} ${metricValue}`)
      .join(', '),
    'success rate': agent.successRate,
    sessions: agent.totalSessions,
  });
}

async function useMemory(): Promise<void> {
  const memory = await EnhancedSchemaService.createMemory({
    userId,
    agentId,
    sessionId: `child-${run}`,
    type: 'fact',
    memoryType: 'user_preference',
    content: { preference: 'dark_mode', value: true },
    importance: 0.8,
    confidence: 0.9,
    sourceType: 'user_input',
  });
  const access = await EnhancedSchemaService.recordMemoryAccess({
    memoryId: memory.id,
    accessType: 'read',
    accessedBy: agentId,
    accessorType: 'agent',
    context: 'Determining UI preferences',
    usefulness: 0.9,
  });
  const annotation = await EnhancedSchemaService.createMemoryAnnotation({
    memoryId: memory.id,
    annotationType: 'correction',
    content: { value: 'only at night' },
    createdById: userId,
  });
  const applied = await EnhancedSchemaService.applyMemoryAnnotation({
    annotationId: annotation.id,
  });
  print('A memory', {
    memory: memory.id,
    accessed: `by ${access.accessedBy}, usefulness ${access.usefulness}`,
    annotation: `${applied.annotationType}, applied ${applied.appliedAt?.toISOString()}`,
  });
}

function print(title: string, facts: Record<string, unknown>): void {
  console.log(`\n${title}`);
  for (const [name, value] of Object.entries(facts))
    console.log(`  ${name.padEnd(14)}${String(value)}`);
}

try {
  await ensureUserAndAgent();
  await createSessionHierarchy();
  await trackModuleState();
  await versionAgent();
  await measureAgent();
  await useMemory();
} catch (error) {
  console.error(`The example failed: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
} finally {
  await EnhancedSchemaService.disconnect();
}
