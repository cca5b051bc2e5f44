/* A simulated agent runtime, as a process of its own. */
import { loadConfig } from '../config.ts';
import { createPrismaClient } from '../database/client.ts';
import { openServers } from '../embedded/index.ts';
import { createLogger } from '../logger.ts';
import { createProducer } from '../producers/producer.ts';
import { EnhancedSchemaService } from '../services/enhancedSchemaService.ts';
import { belongToParent, tellParent } from './children.ts';
import { Plan, type PlanSettings } from './plan.ts';
import { Simulation } from './simulation.ts';

belongToParent();

const { runtime, ...settings } = JSON.parse(process.argv[2] ?? '{}') as PlanSettings & {
  runtime: number;
};
const config = loadConfig();
const log = createLogger(config);
const servers = await openServers(config);
const prisma = createPrismaClient(servers.databaseUrl, { applicationName: 'annals demo runtime' });
EnhancedSchemaService.use(prisma);
const producer = createProducer({
  queue: servers.queue,
  config,
  onError: (error) => log.warn({ reason: (error as Error).message }, 'the queue cannot be reached'),
});

const simulation = new Simulation({ plan: new Plan(settings), runtime, producer, prisma });
const progress = () => ({ ...simulation.progress, delivered: producer.stats().delivered });
const timer = setInterval(() => void tellParent(progress()), 50);

const claim = await simulation.run();
clearInterval(timer);
await producer.close();
await prisma.$disconnect();
await servers.close();
await tellParent({ ...progress(), claim });
process.exit();
