import type { Redis } from 'ioredis';

import { withClient } from '../backfill/data.ts';
import { CONTESTANTS, type ContestantName } from '../contestants/index.ts';
import { dropQueues, resetTables } from './database.ts';
import type { Ground } from './ground.ts';
import { PRODUCERS, type Load } from './load.ts';
import { Child } from './process.ts';

/** What events take that wait in the queue, since no worker is there. */
export interface Backlog {
  name: ContestantName;
  events: number;
  /** Memory of Redis, or tables and indexes of PostgreSQL, before anything is vacuumed. */
  bytesPerEvent: number;
  /** What their arrival wrote to the append-only file, or to PostgreSQL's log. */
  logBytesPerEvent: number;
}

/** Has the producers emit the load while nobody consumes. */
export async function measureBacklog(
  ground: Ground,
  name: ContestantName,
  load: Load,
): Promise<Backlog> {
  const { place, redis } = ground;
  const contestant = CONTESTANTS[name];
  await redis?.flushall();
  await dropQueues(place.databaseUrl);
  await resetTables(place.databaseUrl, load);
  if ('prepare' in contestant) await contestant.prepare?.(place);
  const look = () =>
    'needsRedis' in contestant && contestant.needsRedis && redis
      ? lookAtRedis(redis)
      : lookAtPostgres(place.databaseUrl);
  const producers = Array.from(
    { length: PRODUCERS },
    (_, producer) =>
      new Child(`producer-${producer}`, {
        contestant: name,
        role: 'producer',
        producer,
        load,
        place,
      }),
  );
  try {
    await Promise.all(producers.map((producer) => producer.next('ready')));
    const before = await look();
    await Promise.all(
      producers.map((producer) => {
        const done = producer.next('done');
        producer.order('go');
        return done;
      }),
    );
    const after = await look();
    await Promise.all(producers.map((producer) => producer.stop()));
    const each = (figure: 'held' | 'logged') =>
      Math.round((after[figure] - before[figure]) / load.events);
    return {
      name,
      events: load.events,
      bytesPerEvent: each('held'),
      logBytesPerEvent: each('logged'),
    };
  } finally {
    for (const producer of producers) producer.kill();
  }
}

async function lookAtRedis(redis: Redis) {
  const info = `${await redis.info('memory')}${await redis.info('persistence')}`;
  const figure = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1]);
  return { held: figure('used_memory'), logged: figure('aof_current_size') };
}

const lookAtPostgres = (databaseUrl: string) =>
  withClient(databaseUrl, async (client) => {
    const { rows } = await client.query<{ held: number; logged: number }>(
      `SELECT (SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
               WHERE relkind = 'r' AND relnamespace = to_regnamespace('bench_annals'))::float8 AS held,
         pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 AS logged`,
    );
    return rows[0] ?? { held: NaN, logged: NaN };
  });
