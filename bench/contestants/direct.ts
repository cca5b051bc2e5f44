import { createPrismaClient } from '../../src/database/client.ts';
import type { PlannedEvent } from '../../src/demo/plan.ts';
import { EnhancedSchemaService } from '../../src/services/enhancedSchemaService.ts';
import type { Contestant } from './contestant.ts';

/** No queue: each producer calls the service, and waits for it, event by event. */
export const direct: Contestant = {
  about: 'EnhancedSchemaService, one call after the other in each producer',
  maxEvents: 20_000,
  produce: async ({ databaseUrl }, events) => {
    const prisma = createPrismaClient(databaseUrl);
    await prisma.$connect();
    EnhancedSchemaService.use(prisma);
    return async () => {
      for (const planned of events) await record(planned);
      await prisma.$disconnect();
    };
  },
};

async function record({ kind, event }: PlannedEvent): Promise<void> {
  switch (kind) {
    case 'memory-access':
      await EnhancedSchemaService.recordMemoryAccess(event);
      break;
    case 'transition':
      await EnhancedSchemaService.recordStateTransition(event as never);
      break;
    case 'session-event':
      await EnhancedSchemaService.createSessionEvent(event as never);
      break;
    case 'metrics':
      if (event.scope === 'session') {
        const { scope: _, ...metric } = event;
        await EnhancedSchemaService.createSessionMetric(metric);
      } else {
        const { scope: _, agentId, ...metric } = event;
        await EnhancedSchemaService.updateAgentMetrics({ agentId, metrics: [metric] });
      }
  }
}
