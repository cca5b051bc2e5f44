import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { InvalidEventError } from '../src/errors.ts';
import { prepareQueues, type QueueLocation } from '../src/queues/backend.ts';
import { createTestDatabase, testPrefix, type TestDatabase } from './support/database.ts';
import { sample } from './support/events.ts';
import { openQueues, testProducer } from './support/pipeline.ts';

let db: TestDatabase;
let location: QueueLocation;
let queues: ReturnType<typeof openQueues>;

beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.drop());

const event = (n: number, context = '') => ({ ...sample('memory-access', n), context }) as never;

/** Events in each waiting job, oldest first. */
const jobSizes = async () =>
  (await queues['memory-access'].getWaiting(0, -1)).map(({ data }) => data.events.length);

describe('packing', () => {
  beforeEach(async () => {
    location = { kind: 'postgres', url: db.url, prefix: testPrefix() };
    await prepareQueues(location);
    queues = openQueues(location);
    return () => queues.close();
  });

  it('fills jobs up to the count', async () => {
    const producer = testProducer(location, { env: { ANNALS_PACK_MAX_EVENTS: '100' } });
    for (let n = 0; n < 250; n++) producer.memoryAccess(event(n));
    await producer.close();
    expect(await jobSizes()).toEqual([100, 100, 50]);
  });

  it('fills jobs up to the bytes; a larger event travels alone', async () => {
    const producer = testProducer(location, { env: { ANNALS_PACK_MAX_BYTES: '10000' } });
    for (const [n, length] of [4000, 4000, 4000, 20_000, 10].entries()) {
      producer.memoryAccess(event(n, 'x'.repeat(length)));
    }
    await producer.close();
    const jobs = await queues['memory-access'].getWaiting(0, -1);
    expect(jobs.map(({ data }) => data.events.length)).toEqual([2, 1, 1, 1]);
    for (const { data } of jobs.filter(({ data }) => data.events.length > 1)) {
      expect(JSON.stringify(data).length).toBeLessThanOrEqual(10_000);
    }
  });

  it('puts accesses to the same memories together where many wait', async () => {
    const producer = testProducer(location, { env: { ANNALS_PACK_MAX_EVENTS: '100' } });
    const memories = Array.from({ length: 200 }, (_, n) => `memory-${n}`);
    const emitted = Array.from({ length: 1000 }, (_, n) =>
      producer.memoryAccess({
        ...sample('memory-access', n),
        memoryId: memories[(n * 7) % 200],
      } as never),
    );
    await producer.close();
    const jobs = await queues['memory-access'].getWaiting(0, -1);
    const events = jobs.map(({ data }) => data.events as { id: string; memoryId: string }[]);
    expect(events.map(({ length }) => length)).toEqual(Array.from({ length: 10 }, () => 100));
    expect(new Set(events.flat().map(({ id }) => id))).toEqual(new Set(emitted));
    // Of 200 memories an eighth, then a half; a hundred accesses in any order have 80 or so.
    const memoriesOf = events.map((each) => new Set(each.map(({ memoryId }) => memoryId)).size);
    expect(Math.max(...memoriesOf.slice(0, 8))).toBeLessThanOrEqual(30);
    expect(Math.max(...memoriesOf.slice(8))).toBeLessThanOrEqual(100);
  });

  it('brings what was accepted before a flush before the flush is done, whatever comes after it', async () => {
    const producer = testProducer(location, { env: { ANNALS_PACK_MAX_EVENTS: '100' } });
    producer.memoryAccess(event(100_000));
    await producer.flush(); // the queue is there
    const emit = (from: number, count: number) =>
      Array.from({ length: count }, (_, n) =>
        producer.memoryAccess({
          ...sample('memory-access', from + n),
          memoryId: `memory-${(n * 7) % 200}`,
        } as never),
      );
    const before = emit(0, 250);
    const flushed = producer.flush();
    emit(1000, 2000);
    await flushed;
    const jobs = await queues['memory-access'].getWaiting(0, -1);
    const brought = new Set(
      jobs.flatMap(({ data }) => (data.events as { id: string }[]).map(({ id }) => id)),
    );
    expect(before.filter((id) => !brought.has(id))).toEqual([]);
    await producer.close();
  });

  it('sends a lone event within 50 ms of its own accord, once connected', async () => {
    const producer = testProducer(location);
    producer.memoryAccess(event(1));
    await producer.flush();
    const emittedAt = performance.now();
    producer.memoryAccess(event(2));
    while (producer.stats().buffered > 0) await new Promise((resolve) => setTimeout(resolve, 1));
    // 10 ms of waiting for company; the rest is the queue's answer on a busy machine.
    expect(performance.now() - emittedAt).toBeLessThan(1000);
    expect(await jobSizes()).toEqual([1, 1]);
    await producer.close();
  });
});

describe('a wrong event', () => {
  const wrong: [string, Record<string, unknown>, string][] = [
    ['a typo', { usefullness: 1 }, 'usefullness'],
    ['a number out of range', { usefulness: 2 }, 'usefulness'],
    ['NaN', { usefulness: Number.NaN }, 'usefulness'],
    ['an id that is none', { id: 'x' }, 'id'],
    ['a time without a zone', { occurredAt: '2024-05-15T15:00:00' }, 'occurredAt'],
  ];
  it.each(wrong)('%s is refused with the field', async (_, change, field) => {
    const producer = testProducer({ kind: 'postgres', url: db.url, prefix: 'annals' });
    try {
      producer.memoryAccess({ ...sample('memory-access', 1), ...change } as never);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(InvalidEventError);
      expect(error).toMatchObject({ field });
    }
    expect(producer.stats()).toMatchObject({ accepted: 0, invalid: 1 });
    await producer.close();
  });

  it('is told by the id that it brought, whatever cannot be read before that', async () => {
    const errors: InvalidEventError[] = [];
    const producer = testProducer(
      { kind: 'postgres', url: db.url, prefix: 'annals' },
      { onInvalid: (error) => errors.push(error) },
    );
    const { id, occurredAt: _, ...event } = sample('session-event', 1);
    const toJSON = () => {
      throw new TypeError('mine');
    };
    const told = producer.sessionEvent({ ...event, eventData: { toJSON }, id } as never);
    expect(told).toBe(id);
    expect(errors[0]?.message).toContain(`${told} cannot be read: TypeError: mine`);
    await producer.close();
  });

  it.each(['id', 'occurredAt'])('goes to onInvalid if its %s cannot be read', async (field) => {
    const errors: InvalidEventError[] = [];
    const producer = testProducer(
      { kind: 'postgres', url: db.url, prefix: 'annals' },
      { onInvalid: (error) => errors.push(error) },
    );
    const wrongEvent = Object.defineProperty(sample('memory-access', 1), field, {
      get: () => {
        throw new TypeError('mine');
      },
    });
    expect(producer.memoryAccess(wrongEvent as never)).toMatch(/^[0-9a-f-]{36}$/);
    expect(errors).toEqual([expect.any(InvalidEventError)]);
    expect(errors[0]).toMatchObject({ message: expect.stringContaining('mine') });
    await producer.close();
  });

  it('goes to onInvalid instead, whatever it throws itself', async () => {
    const errors: InvalidEventError[] = [];
    const producer = testProducer(
      { kind: 'postgres', url: db.url, prefix: 'annals' },
      { onInvalid: (error) => errors.push(error) },
    );
    const thrower = {
      toJSON: () => {
        throw new TypeError('mine');
      },
    };
    producer.transition({ stateId: 's', triggerType: 't', transitionData: thrower });
    producer.transition({ stateId: 's', triggerType: 't', transitionData: new Date(Number.NaN) });
    const id = producer.sessionEvent({
      sessionId: 's',
      eventType: 'e',
      eventData: 'x'.repeat(300_000),
      sequence: 1,
    });
    expect(errors[2]).toMatchObject({ id, message: expect.stringContaining(id) });
    expect(errors.map(({ message }) => message)).toEqual([
      expect.stringContaining('mine'),
      expect.stringContaining('invalid Date'),
      expect.stringContaining('at most 262144'),
    ]);
    await producer.close();
  });
});
