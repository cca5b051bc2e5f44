/** What an agent runtime imports. */
export { createProducer, type ProducerOptions } from './openProducer.ts';
export type { Producer } from './producers/producer.ts';
export type { ProducerStats } from './producers/tally.ts';
export type { QueueLocation } from './queues/backend.ts';
export { EVENT_KINDS, type EventInput, type EventKind } from './queues/events.ts';
export * from './services/enhancedSchemaService.ts';
export { loadConfig, type Config } from './config.ts';
export * from './errors.ts';
