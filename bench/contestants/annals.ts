import { join } from 'node:path';

import { loadConfig } from '../../src/config.ts';
import { createLogger } from '../../src/logger.ts';
import { createWorkerMetrics } from '../../src/metrics/workerMetrics.ts';
import { createProducer } from '../../src/producers/producer.ts';
import { prepareQueues, type QueueLocation } from '../../src/queues/backend.ts';
import { startWorkers } from '../../src/workers/runtime.ts';
import type { Contestant, Place } from './contestant.ts';

/** Events that are emitted before the producer is asked whether it is ready for more. */
const BURST = 500;

/** Milliseconds between two looks at what the workers have committed. */
const LOOK_EVERY_MS = 5;

export const locate = (
  kind: QueueLocation['kind'],
  { redisUrl, databaseUrl }: Place,
): QueueLocation => ({
  kind,
  url: kind === 'redis' ? redisUrl : databaseUrl,
  prefix: 'bench_annals',
});

/** Annals as its README has it: default settings, one worker process. */
function annals(kind: QueueLocation['kind']): Contestant {
  return {
    about: `Annals with its default settings, queues on ${kind}`,
    needsRedis: kind === 'redis',
    prepare: (place) => prepareQueues(locate(kind, place)),
    produce: async (place, events) => {
      const producer = createProducer({
        queue: locate(kind, place),
        config: loadConfig({}),
        spoolFolder: join(place.folder, 'spool', String(process.pid)),
      });
      return async () => {
        for (let from = 0; from < events.length; from += BURST) {
          await producer.ready();
          for (const { kind: each, event } of events.slice(from, from + BURST)) {
            producer.emit(each, event);
          }
        }
        await producer.flush();
        await producer.close();
      };
    },
    consume: async (place, committed) => {
      const config = loadConfig({ ANNALS_LOG_LEVEL: 'error' });
      const workers = await startWorkers({
        databaseUrl: place.databaseUrl,
        queue: locate(kind, place),
        config,
        log: createLogger(config),
        hooks: createWorkerMetrics('bench').hooks, // as `annals worker` has it
      });
      let told = 0;
      const timer = setInterval(() => {
        const all = Object.values(workers.stats()).reduce((sum, { inserted }) => sum + inserted, 0);
        committed(all - told);
        told = all;
      }, LOOK_EVERY_MS);
      return {
        stop: async () => {
          clearInterval(timer);
          await workers.stop(5000);
        },
      };
    },
  };
}

export const annalsRedis = annals('redis');
export const annalsPostgres = annals('postgres');
