import { loadSettings, PRODUCER_SETTINGS, type ProducerConfig } from './config.ts';
import { openServers, type Servers } from './embedded/index.ts';
import {
  createProducer as createBareProducer,
  type Producer,
  type ProducerOptions as BareOptions,
} from './producers/producer.ts';
import type { QueueLocation } from './queues/backend.ts';
import { flushTraces } from './queues/tracing.ts';

export interface ProducerOptions extends Omit<BareOptions, 'queue' | 'config'> {
  /** Where the queues are. Default: as the configuration says, embedded where it says nothing. */
  queue?: BareOptions['queue'];
  /** Default: the environment's. */
  config?: ProducerConfig;
}

/**
 * Makes a producer; one per process is enough. With nothing configured it uses the embedded
 * servers in `.annals/`, which are found, or started, when the first event is sent.
 *
 * @throws {ConfigError} when a setting that a producer reads is wrong
 *
 * @example
 * const annals = createProducer();
 * annals.memoryAccess({ memoryId, accessType: 'read', accessedBy: agentId, accessorType: 'agent' });
 * await annals.close();
 */
export function createProducer(options: ProducerOptions = {}): Producer {
  const config = options.config ?? loadSettings(PRODUCER_SETTINGS);
  let servers: Promise<Servers> | undefined;
  const locate = async (): Promise<QueueLocation> => {
    const { ANNALS_QUEUE_BACKEND: backend, ANNALS_QUEUE_PREFIX: prefix, REDIS_URL: url } = config;
    // With a Redis to send to, a producer needs no PostgreSQL, so none is embedded for it.
    if (url !== undefined && backend !== 'postgres') return { kind: 'redis', url, prefix };
    servers ??= openServers(config);
    // The next attempt to send tries again.
    servers.catch(() => (servers = undefined));
    return (await servers).queue;
  };
  const producer = createBareProducer({ ...options, config, queue: options.queue ?? locate });

  // The lease on embedded servers goes when the producer goes. Servers that are still starting are
  // not waited for: a close keeps to its deadline.
  const closeProducer = producer.close.bind(producer);
  producer.close = (closing) =>
    closeProducer(closing).finally(() => {
      void flushTraces();
      void servers?.then(
        (opened) => opened.close(),
        () => {},
      );
    });
  return producer;
}
