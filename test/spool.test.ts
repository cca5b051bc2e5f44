import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { Redis } from 'ioredis';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { startProxy } from '../bench/chaos/proxy.ts';
import { SpoolError, SpoolFullError, UnavailableError } from '../src/errors.ts';
import type { Producer } from '../src/producers/producer.ts';
import { prepareQueues, type QueueLocation } from '../src/queues/backend.ts';
import { openRedis } from '../src/queues/connection.ts';
import {
  createTestDatabase,
  describeRedis,
  redisUrl,
  testPrefix,
  type TestDatabase,
} from './support/database.ts';
import { eventId, sample } from './support/events.ts';
import { removeFolder } from './support/files.ts';
import { openQueues, testProducer } from './support/pipeline.ts';
import { run, spawnTsx, type RunResult } from './support/process.ts';
import type { ProducerJob } from './support/producerMain.ts';
import { startPostgres, startRedis, type TestServer } from './support/servers.ts';
import { expectBalanced, queuedIds, reaches, segmentFiles } from './support/spools.ts';

/** A port where nobody is: refused at once. */
const nowhere = (): QueueLocation => ({
  kind: 'redis',
  url: 'redis://127.0.0.1:1',
  prefix: testPrefix(),
});

let folder: string;
let spool: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'annals-spool-'));
});
afterAll(() => removeFolder(folder));
beforeEach(() => {
  spool = mkdtempSync(join(folder, 'test-'));
});

const settings = (env: Record<string, string> = {}) => ({
  ANNALS_SPOOL_DIR: spool,
  ANNALS_SPOOL_AFTER_MS: '200',
  ...env,
});
const open = (queue: QueueLocation, { env, ...options }: Parameters<typeof testProducer>[1] = {}) =>
  testProducer(queue, { ...options, env: settings(env) });
const emit = (producer: Producer, from: number, to: number) => {
  for (let n = from; n < to; n++) {
    producer.emit('memory-access', sample('memory-access', n) as never);
  }
};
const ids = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, n) => eventId(from + n, 1));
const unique = (list: string[]) => [...new Set(list)].toSorted();

const spawnProducer = (job: ProducerJob, env: Record<string, string> = {}) =>
  spawnTsx('test/support/producerMain.ts', [JSON.stringify(job)], settings(env));
const runProducer = (job: ProducerJob, env: Record<string, string> = {}): Promise<RunResult> =>
  run(process.execPath, ['--import', 'tsx', 'test/support/producerMain.ts', JSON.stringify(job)], {
    env: settings(env),
    timeoutMs: 120_000,
  });

/**
 * Waits until Redis has written what it took: it answers before that while an fsync takes long, and
 * what it has not written ends with it (docs/guarantees.md).
 */
async function hasWritten({ url }: QueueLocation): Promise<void> {
  const redis = new Redis(url);
  try {
    const isWritten = async () => /^aof_buffer_length:0\r?$/m.test(await redis.info('persistence'));
    await expect.poll(isWritten, { timeout: 10_000 }).toBe(true);
  } finally {
    redis.disconnect();
  }
}

/** Leaves `events` in the spool of a process that was killed. */
async function crashWith(events: number, queue: QueueLocation): Promise<void> {
  const child = spawnProducer({ queue: { ...queue, url: queue.url }, mode: 'flush', events });
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'exit');
}

describe.each(['redis', 'postgres'] as const)(
  'the queue on %s goes away and comes back',
  (kind) => {
    const suite = kind === 'redis' ? describeRedis : describe;
    suite('', () => {
      let server: TestServer;
      let location: QueueLocation;
      beforeAll(async () => {
        server = await (kind === 'redis' ? startRedis() : startPostgres());
        location = { kind, url: server.url, prefix: testPrefix() };
        await prepareQueues(location);
      });
      afterAll(() => server.stop());

      it('delivers all that was emitted before, meanwhile and after', async () => {
        const producer = open(location);
        emit(producer, 0, 100);
        await reaches(producer, (stats) => stats.delivered === 100 && stats.spooledBytes === 0);
        if (kind === 'redis') await hasWritten(location);

        await server.kill();
        emit(producer, 100, 300);
        await producer.flush(); // the fsynced spool has them
        expectBalanced(producer);
        expect(producer.stats()).toMatchObject({ buffered: 0 });
        expect(segmentFiles(spool).length).toBeGreaterThan(0);

        await server.restart();
        emit(producer, 300, 400);
        await reaches(producer, ({ delivered }) => delivered === 400);
        expect(unique(await queuedIds(location))).toEqual(ids(0, 400));
        // The files go when the server surely has their events on its disk.
        await reaches(producer, ({ spooledBytes }) => spooledBytes === 0);
        expect(segmentFiles(spool)).toEqual([]);
        await producer.close();
      });

      const queuedBetween = async (from: number, to: number) =>
        (await queuedIds(location)).filter((id) => ids(from, to).includes(id)).toSorted();

      it.each(['queue', 'sync'] as const)(
        'gives a queue that is slow nothing twice (durability %s)',
        async (durability) => {
          const from = durability === 'sync' ? 4000 : 3000;
          const producer = open(location, { durability });
          emit(producer, from, from + 10);
          await reaches(producer, (stats) => stats.delivered === 10 && stats.spooledBytes === 0);

          server.pause();
          emit(producer, from + 10, from + 110);
          await sleep(100);
          // While those are on their way. With durability 'sync' their segment would have these too.
          const more = durability === 'queue' ? 50 : 0;
          emit(producer, from + 110, from + 110 + more);
          await reaches(producer, ({ spooled }) => spooled === 100 + more);
          emit(producer, from + 110 + more, from + 210); // while they are late
          await reaches(producer, ({ spooled }) => spooled === 200);
          await sleep(1000);
          server.resume();
          await reaches(producer, (stats) => stats.delivered === 210 && stats.spooledBytes === 0);
          await producer.close();
          expect(await queuedBetween(from, from + 210)).toEqual(ids(from, from + 210));
          expect(segmentFiles(spool)).toEqual([]);
        },
      );

      it('sends again what a call was late with, and then failed to bring', async () => {
        const proxy = await startProxy(server.url);
        const producer = open({ ...location, url: proxy.url });
        try {
          emit(producer, 5000, 5010);
          await reaches(producer, ({ delivered }) => delivered === 10);
          proxy.silence();
          emit(producer, 5010, 5110);
          await reaches(producer, ({ spooled }) => spooled === 100);
          proxy.reset();
          const cutAt = performance.now();
          await reaches(producer, ({ delivered }) => delivered === 110);
          expect(performance.now() - cutAt).toBeLessThan(5000); // long before the call's own time is up
          await reaches(producer, ({ spooledBytes }) => spooledBytes === 0);
          expect(await queuedBetween(5000, 5110)).toEqual(ids(5000, 5110));
        } finally {
          await producer.close();
          proxy.close();
        }
      });

      it('tries once more at a close what a late call failed to bring', async () => {
        const proxy = await startProxy(server.url);
        const producer = open({ ...location, url: proxy.url });
        emit(producer, 6000, 6010);
        await reaches(producer, (stats) => stats.delivered === 10 && stats.spooledBytes === 0);
        proxy.silence();
        emit(producer, 6010, 6020);
        await reaches(producer, ({ spooled }) => spooled === 10);
        await producer.close({ deadlineMs: 30_000 }); // the call has ten seconds
        expect(producer.stats()).toMatchObject({ delivered: 20, spooledBytes: 0 });
        expect(await queuedBetween(6000, 6020)).toEqual(ids(6000, 6020));
        proxy.close();
      });

      it.each([
        ['kill', 1000],
        ['pause', 2000],
      ] as const)(
        'closes in time (%s), and the next start delivers the rest',
        async (how, first) => {
          const producer = open(location);
          emit(producer, first, first + 10);
          // On a loaded machine they may go by way of the spool, and Redis have its time.
          await reaches(producer, (stats) => stats.delivered === 10 && stats.spooledBytes === 0);
          if (how === 'kill') await server.kill();
          else server.pause();
          emit(producer, first + 10, first + 50);
          const beganAt = performance.now();
          await producer.close({ deadlineMs: 1500 });
          expect(performance.now() - beganAt).toBeLessThan(2500);
          expectBalanced(producer);
          expect(producer.stats()).toMatchObject({ delivered: 10, spooled: 40 });

          if (how === 'kill') await server.restart();
          else server.resume();
          const next = open(location);
          await reaches(next, ({ adopted }) => adopted === 40);
          await next.close();
          expect(next.stats()).toMatchObject({ accepted: 0, spooledBytes: 0 });
          // What Redis took before it was killed is its own to keep: with appendfsync everysec it
          // may not have written it yet, if its disk was busy.
          const queued = unique(await queuedIds(location));
          expect(
            queued.filter((id) => id >= eventId(first + 10, 1) && id < eventId(first + 999, 1)),
          ).toEqual(ids(first + 10, first + 50));
          expect(segmentFiles(spool)).toEqual([]);
        },
      );
    });
  },
);

describe('what a dead producer left', () => {
  let db: TestDatabase;
  let location: QueueLocation;
  beforeAll(async () => {
    db = await createTestDatabase();
  });
  afterAll(() => db.drop());
  beforeEach(async () => {
    location = { kind: 'postgres', url: db.url, prefix: testPrefix() };
    await prepareQueues(location);
  });
  /** The queues cannot be reached, but are the same to whoever looks at host and database. */
  const cutOff = () => ({ ...location, url: location.url.replace(/:[^:@]*@/, ':wrong@') });

  it('is delivered by exactly one of those who find it, and not while it lives', async () => {
    const stopped = spawnProducer({ queue: cutOff(), mode: 'flush', events: 20 });
    await once(stopped.stdout, 'data');
    stopped.kill('SIGSTOP');
    await crashWith(300, cutOff());

    const producers = [open(location), open(location), open(location)];
    const adopted = () => producers.map((producer) => producer.stats().adopted);
    await expect.poll(() => Math.max(...adopted()), { timeout: 20_000 }).toBe(300);
    await Promise.all(producers.map((producer) => producer.close()));
    expect(adopted().toSorted((a, b) => a - b)).toEqual([0, 0, 300]);
    expect(await queuedIds(location)).toEqual(ids(0, 300)); // once, and in their order
    expect(segmentFiles(spool)).toHaveLength(1); // of the one that was stopped

    stopped.kill('SIGKILL');
    await once(stopped, 'exit');
    const last = open(location);
    await reaches(last, ({ adopted }) => adopted === 20);
    await last.close();
    expect(segmentFiles(spool)).toEqual([]);
  });

  it('is delivered but for what is damaged, which is told', async () => {
    await crashWith(100, cutOff());
    const [file] = segmentFiles(spool);
    const bytes = readFileSync(file!);
    bytes[bytes.indexOf('memory-1', bytes.length / 2)]! ^= 0x10;
    writeFileSync(file!, bytes.subarray(0, bytes.length - 20));

    const told: [string, number][] = [];
    const producer = open(location, { onCorrupt: (...damage) => told.push(damage) });
    await reaches(producer, ({ adopted }) => adopted > 0);
    await producer.close();
    expect(producer.stats()).toMatchObject({ adopted: 98, corrupt: 2, dropped: 0 });
    expect(told).toEqual([[expect.stringContaining('00000001.log'), 2]]);
    expect(await queuedIds(location)).toHaveLength(98);
  });

  it('does not include what was damaged while it lived, which is counted as dropped', async () => {
    let isAway = true;
    const drops: number[] = [];
    const producer = open(location, {
      queue: async () => {
        if (isAway) throw new Error('away');
        return location;
      },
      onDrop: (events) => drops.push(events),
    });
    emit(producer, 0, 100);
    await producer.flush();
    const [file] = segmentFiles(spool);
    const bytes = readFileSync(file!);
    bytes[bytes.indexOf('memory-1', bytes.length / 2)]! ^= 0x10;
    writeFileSync(file!, bytes);
    isAway = false;
    await reaches(producer, ({ spooledBytes }) => spooledBytes === 0);
    expect(producer.stats()).toMatchObject({ delivered: 99, dropped: 1, spooled: 0, corrupt: 1 });
    expect(drops).toEqual([1]);
    emit(producer, 100, 101);
    await producer.close();
    const queues = openQueues(location);
    const jobs = await queues['memory-access'].getWaiting(0, -1);
    expect(jobs.at(-1)?.data.producer).toMatchObject({ accepted: 101, dropped: 1 });
    await queues.close();
  });

  it('does not include what somebody removed', async () => {
    let isAway = true;
    const producer = open(location, {
      queue: async () => {
        if (isAway) throw new Error('away');
        return location;
      },
    });
    emit(producer, 0, 100);
    await producer.flush();
    removeFolder(spool);
    isAway = false;
    await reaches(producer, ({ spooled }) => spooled === 0);
    emit(producer, 100, 150);
    await producer.close();
    expect(producer.stats()).toMatchObject({ accepted: 150, delivered: 50, dropped: 100 });
    expect(await queuedIds(location)).toEqual(ids(100, 150));
  });

  it.each([
    ['exit', 0],
    ['throw', 1],
  ] as const)('at its end by %s is all that the queue had not taken', async (mode, code) => {
    const ended = await runProducer({ queue: location, mode, events: 1000 });
    expect(ended.code).toBe(code);
    const producer = open(location);
    await reaches(producer, ({ adopted }) => adopted === 1000);
    await producer.close();
    expect(unique(await queuedIds(location))).toEqual(ids(0, 1000));
  });

  it('with durability sync is every event whose emit has returned, at kill -9', async () => {
    const file = join(spool, 'told');
    const job: ProducerJob = { queue: location, mode: 'steady', file };
    const child = spawnProducer(job, { ANNALS_DURABILITY: 'sync' });
    const told = () => (existsSync(file) ? readFileSync(file, 'utf8') : '');
    await expect.poll(told, { timeout: 40_000 }).toMatch(/^1000$/m);
    child.kill('SIGKILL');
    const [, signal] = (await once(child, 'exit')) as [unknown, string];
    expect(signal).toBe('SIGKILL');
    const last = Number(/(\d+)\n\d*$/.exec(told())?.[1]);

    const producer = open(location);
    await producer.close();
    const found = new Set(await queuedIds(location));
    expect(ids(0, last + 1).filter((id) => !found.has(id)).length).toBe(0);
    expect(segmentFiles(spool)).toEqual([]);
  });
});

describeRedis('durability sync', () => {
  it('removes what went to the queue from memory without reading it', async () => {
    const location: QueueLocation = { kind: 'redis', url: redisUrl(), prefix: testPrefix() };
    const producer = open(location, { durability: 'sync' });
    emit(producer, 0, 500);
    expect(producer.stats()).toMatchObject({ accepted: 500, buffered: 500, spooled: 0 });
    expect(producer.stats().spooledBytes).toBeGreaterThan(0);
    await producer.close();
    expect(producer.stats()).toMatchObject({ delivered: 500, spooled: 0, spooledBytes: 0 });
    expect(await queuedIds(location)).toEqual(ids(0, 500));
    expect(segmentFiles(spool)).toEqual([]);
  });
});

describeRedis('a Redis', () => {
  let server: TestServer;
  let location: QueueLocation;
  beforeAll(async () => {
    server = await startRedis({ appendonly: false });
    location = { kind: 'redis', url: server.url, prefix: testPrefix() };
  });
  afterAll(() => server.stop());

  it('that forgets what it confirmed a moment ago is sent it again', async () => {
    const producer = open(location, { durability: 'sync' });
    emit(producer, 0, 100);
    await reaches(producer, ({ delivered }) => delivered === 100);
    await server.kill();
    await server.restart();
    await expect
      .poll(() => queuedIds(location).then(unique), { timeout: 40_000 })
      .toEqual(ids(0, 100));
    await producer.close();
    expect(producer.stats()).toMatchObject({ accepted: 100, delivered: 100, spooledBytes: 0 });
  });

  it('that is back is sent what waits as soon as it is connected', async () => {
    const proxy = await startProxy(server.url);
    const producer = open({ ...location, url: proxy.url, prefix: testPrefix() });
    let waitedMs = 0;
    for (let outage = 1; outage <= 5; outage++) {
      await producer.flush();
      proxy.refuse();
      emit(producer, 10 * (outage - 1), 10 * outage);
      await sleep(2500); // the replay, and nothing else, tries by now, and once a second
      expect(producer.stats()).toMatchObject({ spooled: 10, delivered: 10 * (outage - 1) });
      const { admitted } = proxy;
      proxy.admit();
      while (proxy.admitted === admitted) await sleep(2);
      const connectedAt = performance.now();
      await reaches(producer, ({ delivered }) => delivered === 10 * outage);
      waitedMs += performance.now() - connectedAt;
    }
    // Without being told, half a second each time, on average.
    expect(waitedMs / 5).toBeLessThan(200);
    await producer.close();
    proxy.close();
  });

  it('is reached again when its connection went silent', async () => {
    const proxy = await startProxy(server.url);
    const producer = open({ ...location, url: proxy.url, prefix: testPrefix() });
    emit(producer, 0, 10);
    await producer.flush();
    const { admitted } = proxy;
    proxy.silence();
    emit(producer, 10, 20);
    await reaches(producer, ({ delivered }) => delivered === 20);
    expect(proxy.admitted).toBeGreaterThan(admitted);
    await producer.close();
    proxy.close();
  });

  it('is reached again when the one at its address became a replica', async () => {
    const replica = await startRedis({ appendonly: false });
    const admin = openRedis({ ...location, url: replica.url });
    await once(admin, 'ready');
    await admin.config('SET', 'requirepass', new URL(server.url).password);
    const proxy = await startProxy(server.url);
    proxy.lead(replica.url);
    const moved = { ...location, prefix: testPrefix() };
    const producer = open({ ...moved, url: proxy.url });
    emit(producer, 0, 10);
    await producer.flush();
    await admin.replicaof('127.0.0.1', 1);
    proxy.lead(server.url);
    emit(producer, 10, 20);
    await reaches(producer, ({ delivered }) => delivered === 20);
    expect(await queuedIds(moved)).toEqual(ids(10, 20));
    await producer.close();
    admin.disconnect();
    proxy.close();
    await replica.stop();
  });

  it('that hangs and dies while the producer connects is no harm', async () => {
    location = { ...location, prefix: testPrefix() };
    server.pause();
    const producer = open(location);
    emit(producer, 0, 100);
    await producer.flush();
    expect(producer.stats()).toMatchObject({ spooled: 100 });
    await server.kill();
    await server.restart();
    await reaches(producer, ({ delivered }) => delivered === 100);
    expect(unique(await queuedIds(location))).toEqual(ids(0, 100));
    await producer.close({ deadlineMs: 0 });
    expect(producer.stats()).toMatchObject({ accepted: 100, delivered: 100 });
  });
});

describe('with the queue away', () => {
  it('keeps to the memory and to the spool, then drops the newest', async () => {
    const drops: number[] = [];
    const producer = open(nowhere(), {
      env: { ANNALS_SPOOL_MAX_BYTES: String(2 ** 20), ANNALS_BUFFER_MAX_BYTES: String(2 ** 20) },
      onDrop: (events) => drops.push(events),
    });
    emit(producer, 0, 20_000);
    expectBalanced(producer);
    const { spooled, buffered, dropped, spooledBytes, bufferedBytes } = producer.stats();
    expect(spooledBytes).toBeLessThanOrEqual(2 ** 20);
    expect(bufferedBytes).toBeLessThanOrEqual(2 ** 20);
    expect(Math.min(spooled, buffered)).toBeGreaterThan(2000);
    expect(drops.reduce((sum, n) => sum + n, 0)).toBe(dropped);
    await expect(producer.close({ deadlineMs: 300 })).rejects.toThrow(UnavailableError);
    expectBalanced(producer);
    expect(producer.stats().buffered).toBe(0);
  });

  it('throws from emit if so wanted', async () => {
    const producer = open(nowhere(), {
      env: { ANNALS_SPOOL_MAX_BYTES: String(2 ** 20), ANNALS_BUFFER_MAX_BYTES: String(2 ** 20) },
      onFull: 'throw',
    });
    expect(() => emit(producer, 0, 20_000)).toThrow(SpoolFullError);
    const before = producer.stats();
    expect(before).toMatchObject({ dropped: 0 });
    expect(() => emit(producer, 0, 1)).toThrow(SpoolFullError);
    expect(producer.stats().accepted).toBe(before.accepted);
    expectBalanced(producer);
    await producer.close({ deadlineMs: 300 }).catch(() => {});
  });

  it('says once that the spool cannot be written, and counts what is lost', async () => {
    const errors: unknown[] = [];
    writeFileSync(join(spool, 'file'), '');
    const producer = open(nowhere(), {
      env: { ANNALS_SPOOL_DIR: join(spool, 'file'), ANNALS_BUFFER_MAX_EVENTS: '10' },
      onError: (error) => errors.push(error),
    });
    emit(producer, 0, 500);
    expect(producer.stats()).toMatchObject({ accepted: 500, buffered: 10, dropped: 490 });
    const flushing = producer.flush();
    flushing.catch(() => {}); // looked at below
    await expect(producer.close({ deadlineMs: 500 })).rejects.toThrow(/10 events .* dropped/);
    await expect(flushing).rejects.toThrow(UnavailableError);
    expect(errors.filter((error) => error instanceof SpoolError)).toHaveLength(1);
    expectBalanced(producer);
  });

  it('takes 1,000,000 events in one go within its bounds', { timeout: 150_000 }, async () => {
    const job: ProducerJob = { queue: nowhere(), mode: 'measure', events: 1_000_000 };
    const { stdout, stderr } = await runProducer(job, {
      ANNALS_SPOOL_MAX_BYTES: String(2 ** 30),
      // Far less than the events take: were they kept, the process would die of it.
      NODE_OPTIONS: '--max-old-space-size=192',
    });
    expect(stderr).toBe('');
    const { p99, rssMiB, stats } = JSON.parse(stdout);
    expect(stats).toMatchObject({ accepted: 1_000_000, dropped: 0 });
    expect(stats.bufferedBytes).toBeLessThanOrEqual(64 * 2 ** 20);
    expect(p99).toBeLessThan(1000);
    expect(rssMiB).toBeLessThan(400);
  });
});

it('keeps apart what goes to different queues', async () => {
  const db = await createTestDatabase();
  const away = nowhere();
  const one = open(away);
  emit(one, 0, 10);
  await one.close({ deadlineMs: 500 });
  expect(one.stats()).toMatchObject({ spooled: 10 });
  const other = open({ kind: 'postgres', url: db.url, prefix: 'annals' });
  emit(other, 10, 20);
  await other.close();
  expect(other.stats()).toMatchObject({ delivered: 10, adopted: 0 });
  await db.drop();
});
