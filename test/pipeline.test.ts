import { setTimeout as sleep } from 'node:timers/promises';

import { Redis } from 'ioredis';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';

import type { Producer } from '../src/producers/producer.ts';
import type { QueueLocation } from '../src/queues/backend.ts';
import type { Workers } from '../src/workers/runtime.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { sample } from './support/events.ts';
import {
  describeBackends,
  drained,
  openQueues,
  seedParents,
  testProducer,
  testWorkers,
} from './support/pipeline.ts';

describeBackends('emit to rows', (locate) => {
  let db: TestDatabase;
  let location: QueueLocation;
  let workers: Workers;
  let producer: Producer;
  let queues: ReturnType<typeof openQueues>;

  beforeAll(async () => {
    db = await createTestDatabase();
    await seedParents(db);
    location = locate(db);
    workers = await testWorkers(db, location, { ANNALS_JOB_ATTEMPTS: '4' });
    producer = testProducer(location);
    queues = openQueues(location);
  });

  afterAll(async () => {
    await producer.close();
    await workers.stop(10_000);
    await queues.close();
    await db.drop();
  });

  it('stores an event of each kind with all of its fields', async () => {
    const occurredAt = '2024-05-15T17:00:00.123+02:00';
    const access = producer.memoryAccess({
      occurredAt,
      memoryId: 'memory-0',
      accessType: 'read',
      accessedBy: 'agent',
      accessorType: 'agent',
      context: 'zero\0 and lone \ud800',
      usefulness: 0.25,
    });
    const transition = producer.transition({
      occurredAt,
      stateId: 'state',
      triggerType: 'user_action',
      triggerId: 'call-1',
      transitionData: { a: [1, { b: null }] },
      newValues: false,
    });
    const ofSession = producer.metric({
      occurredAt,
      scope: 'session',
      sessionId: 'session',
      metricType: 'turns',
      metricValue: 1e300,
    });
    const ofAgent = producer.metric({
      occurredAt,
      scope: 'agent',
      agentId: 'agent',
      metricType: 'success',
      metricValue: -0.5,
      timeframe: 'daily',
      metadata: 'text',
    });
    const event = producer.sessionEvent({
      occurredAt,
      sessionId: 'session-row',
      eventType: 'user_input',
      eventData: 'hello',
      sequence: 7,
      duration: 12.5,
    });
    await producer.flush();
    await drained(queues);

    const at = new Date(occurredAt);
    expect(await db.prisma.memoryAccess.findUnique({ where: { id: access } })).toEqual({
      id: access,
      occurredAt: at,
      memoryId: 'memory-0',
      accessType: 'read',
      accessedBy: 'agent',
      accessorType: 'agent',
      context: 'zero\ufffd and lone \ufffd',
      usefulness: 0.25,
    });
    expect(
      await db.prisma.interactionMemory.findUnique({ where: { id: 'memory-0' } }),
    ).toMatchObject({
      accessCount: 1,
      lastAccessedAt: at,
    });
    expect(await db.prisma.stateTransition.findUnique({ where: { id: transition } })).toEqual({
      id: transition,
      occurredAt: at,
      stateId: 'state',
      triggerType: 'user_action',
      triggerId: 'call-1',
      transitionData: { a: [1, { b: null }] },
      previousValues: null,
      newValues: false,
    });
    expect(await db.prisma.sessionMetric.findUnique({ where: { id: ofSession } })).toEqual({
      id: ofSession,
      occurredAt: at,
      sessionId: 'session-row',
      metricType: 'turns',
      metricValue: 1e300,
      metadata: null,
    });
    expect(await db.prisma.agentMetric.findUnique({ where: { id: ofAgent } })).toEqual({
      id: ofAgent,
      occurredAt: at,
      agentId: 'agent',
      metricType: 'success',
      metricValue: -0.5,
      timeframe: 'daily',
      metadata: 'text',
    });
    expect(await db.prisma.sessionEvent.findUnique({ where: { id: event } })).toEqual({
      id: event,
      occurredAt: at,
      sessionId: 'session-row',
      eventType: 'user_input',
      eventData: 'hello',
      sequence: 7,
      duration: 12.5,
    });
    expect(producer.stats()).toMatchObject({ accepted: 5, delivered: 5, buffered: 0, replaced: 2 });
  });

  it('keeps waiting for a parent that comes later', async () => {
    const id = producer.memoryAccess({
      memoryId: 'late',
      accessType: 'read',
      accessedBy: 'agent',
      accessorType: 'agent',
    });
    await producer.flush();
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(await db.prisma.memoryAccess.count({ where: { id } })).toBe(0);
    await db.sql(
      `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt")
       VALUES ('late', 'user', 'agent', 'fact', '{}', 0.5, now())`,
    );
    await drained(queues);
    expect(await db.prisma.memoryAccess.count({ where: { id } })).toBe(1);
  });

  it('keeps only the offending events in a dead letter that names the field, and retries it', async () => {
    const event = (id: string, memoryId: string, usefulness: number) => ({
      id: `00000000-0000-4000-8000-${id.padStart(12, '0')}`,
      occurredAt: '2024-05-15T15:00:00Z',
      memoryId,
      accessType: 'read',
      accessedBy: 'agent',
      accessorType: 'agent',
      usefulness,
    });
    const job = await queues['memory-access'].add('memory-access', {
      v: 1,
      events: [event('1', 'memory-1', 0.5), event('2', 'nobody', 0.5), event('3', 'memory-1', 1.5)],
    });
    await drained(queues);
    const failed = await queues['memory-access'].getJob(job.id!);
    expect(await failed?.getState()).toBe('failed');
    expect(failed?.data.events).toEqual([event('2', 'nobody', 0.5), event('3', 'memory-1', 1.5)]);
    expect(failed?.failedReason).toContain('memoryId: unknown id "nobody"');
    expect(failed?.failedReason).toContain('usefulness: ');
    expect(
      (await db.prisma.interactionMemory.findUnique({ where: { id: 'memory-1' } }))?.accessCount,
    ).toBe(1);

    await db.sql(
      `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt")
       VALUES ('nobody', 'user', 'agent', 'fact', '{}', 0.5, now())`,
    );
    await failed?.retry();
    await drained(queues);
    const again = await queues['memory-access'].getJob(job.id!);
    expect(again?.data.events).toEqual([event('3', 'memory-1', 1.5)]);
    expect(again?.failedReason).not.toContain('nobody');
    expect(
      (await db.prisma.interactionMemory.findUnique({ where: { id: 'nobody' } }))?.accessCount,
    ).toBe(1);
  });

  it.each([
    ['no object', 'text'],
    ['no version', { events: [] }],
    ['another version', { v: 2, events: [] }],
    ['no array', { v: 1, events: {} }],
  ])('makes a dead letter of a job that holds %s', async (_, data) => {
    const job = await queues.transition.add('transition', data as never);
    await drained(queues);
    const failed = await queues.transition.getJob(job.id!);
    expect(await failed?.getState()).toBe('failed');
    expect(failed?.data).toEqual(data);
    expect(failed?.failedReason).toMatch(/envelope|events/);
  });

  it('takes no more large jobs than it soon writes, all of them in the end, and then as many small ones as may be', async () => {
    const before = await db.prisma.sessionEvent.count();
    await db.prisma.$transaction(
      async (tx) => {
        await tx.$executeRaw`LOCK TABLE "SessionEvent" IN ACCESS EXCLUSIVE MODE`;
        await queues['session-event'].pause(); // all are there before the first is taken
        const eventData = 'x'.repeat(100_000);
        for (let n = 0; n < 120; n++) {
          producer.sessionEvent({
            sessionId: 'session',
            eventType: 'large',
            eventData,
            sequence: n,
          });
        }
        await producer.flush(); // twelve jobs of a megabyte, or more that are smaller
        await queues['session-event'].resume();
        await vi.waitUntil(async () => (await queues['session-event'].getActiveCount()) > 0);
        await sleep(1000);
        expect(await queues['session-event'].getActiveCount()).toBeLessThanOrEqual(4);
        expect(await queues['session-event'].getWaitingCount()).toBeGreaterThanOrEqual(8);
      },
      { timeout: 30_000 },
    );
    await drained(queues);
    expect(await db.prisma.sessionEvent.count()).toBe(before + 120);

    await db.prisma.$transaction(
      async (tx) => {
        await tx.$executeRaw`LOCK TABLE "SessionEvent" IN ACCESS EXCLUSIVE MODE`;
        for (let n = 0; n < 12; n++) {
          const eventData = 'small';
          producer.sessionEvent({
            sessionId: 'session',
            eventType: eventData,
            eventData,
            sequence: n,
          });
          await producer.flush(); // a job of its own
        }
        await vi.waitUntil(
          async () => (await queues['session-event'].getActiveCount()) === 12,
          10_000,
        );
      },
      { timeout: 30_000 },
    );
    await drained(queues);
  });

  it('keeps few finished jobs, and a short event stream', async () => {
    let busy = testProducer(location, { env: { ANNALS_PACK_MAX_EVENTS: '1' } });
    for (let n = 0; n < 600; n++) busy.emit('metrics', sample('metrics', n) as never);
    await busy.close();
    await drained(queues);
    // Jobs that complete at the same moment do not see each other when PostgreSQL trims: the next
    // job to complete takes the few that they left over.
    busy = testProducer(location);
    busy.emit('metrics', sample('metrics', 600) as never);
    await busy.close();
    await drained(queues);
    expect(await queues.metrics.getCompletedCount()).toBeLessThanOrEqual(10);
    // 600 jobs make 1,800 entries. Redis trims by whole nodes of 100; PostgreSQL at each 256th, but
    // lets it be where another transaction trims or has not yet committed what there is to trim.
    // Jobs that are added one after another, to a queue that rests, have the trimming to themselves.
    await queues.metrics.pause();
    for (let n = 0; n < 128; n++) {
      await queues.metrics.add('metrics', { v: 1, events: [sample('metrics', 600)] } as never);
    }
    expect(await eventStreamLength(db, location, 'metrics')).toBeLessThanOrEqual(1256);
    await queues.metrics.resume();
    await drained(queues);
  });
});

async function eventStreamLength(
  db: TestDatabase,
  location: QueueLocation,
  queue: string,
): Promise<number> {
  if (location.kind === 'redis') {
    const redis = new Redis(location.url);
    const length = await redis.xlen(`${location.prefix}:${queue}:events`);
    redis.disconnect();
    return length;
  }
  const [row] = await db.sql(
    `SELECT count(*)::int AS n FROM ${location.prefix}.event WHERE queue = $1`,
    [queue],
  );
  return row.n;
}
