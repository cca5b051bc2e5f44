import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';

import { Queue } from 'bullmq';

import { loadConfig } from '../../src/config.ts';
import type { PlannedEvent } from '../../src/demo/plan.ts';
import { createProducer, type Producer } from '../../src/producers/producer.ts';
import { prepareQueues, type QueueLocation } from '../../src/queues/backend.ts';
import { onPath } from '../../test/support/programs.ts';
import { describeGround, openGround, type Ground } from '../ingest/ground.ts';
import { eventsOf } from '../ingest/load.ts';
import { median, quantile, round1 } from '../statistics.ts';

/** Calls between two turns of the event loop, so that what is sent in the background is sent. */
const BURST = 100;

/** `queue.add` is waited for, and takes a part of the calls. */
const MAX_WAITED_CALLS = 10_000;

/** Events a second while the event loop is watched. */
const STEADY_RATE = 100_000;

/** Nanoseconds of one call, from its caller's side. */
export interface CallTimes {
  name: string;
  about: string;
  calls: number;
  /** Medians of the rounds. */
  p50Ns: number;
  p99Ns: number;
  p999Ns: number;
}

/** Milliseconds by which timers are late. */
export interface LoopDelay {
  name: string;
  eventsPerSecond: number;
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
}

export interface EmitOptions {
  calls: number;
  rounds: number;
  /** That the event loop is watched for, in each round. */
  seconds: number;
}

/** An event as agents have it, without id and time, and the same with both. */
interface NewEvent {
  kind: PlannedEvent['kind'];
  event: object;
  identified: object;
}

interface Caller {
  name: string;
  about: string;
  /** Whether each call is waited for; then it is made fewer times. */
  isWaited?: boolean;
  open(ground: Ground): Promise<Called>;
}

interface Called {
  call: (event: NewEvent) => unknown;
  /** Before each burst. */
  ready?: () => Promise<void>;
  close: () => Promise<void>;
}

const locationOf = ({ place }: Ground): QueueLocation =>
  place.redisUrl
    ? { kind: 'redis', url: place.redisUrl, prefix: 'bench_emit' }
    : { kind: 'postgres', url: place.databaseUrl, prefix: 'bench_emit' };

async function openProducer(ground: Ground): Promise<Producer> {
  const queue = locationOf(ground);
  await prepareQueues(queue);
  return createProducer({ queue, config: loadConfig({}), spoolFolder: ground.place.folder });
}

const CALLERS: readonly Caller[] = [
  {
    name: 'clock',
    about: 'nothing; what the measurement itself takes, which is part of all the others',
    open: async () => ({ call: () => {}, close: async () => {} }),
  },
  {
    name: 'array-push',
    about: 'the event into an array',
    open: async () => {
      const events: object[] = [];
      return { call: ({ event }) => events.push(event), close: async () => {} };
    },
  },
  {
    name: 'annals',
    about: 'emit, default settings',
    open: async (ground) => {
      const producer = await openProducer(ground);
      return {
        call: ({ kind, event }) => producer.emit(kind, event as never),
        ready: () => producer.ready(),
        close: () => producer.close(),
      };
    },
  },
  {
    name: 'annals-own-id',
    about: 'emit of an event that has its id and time already',
    open: async (ground) => {
      const producer = await openProducer(ground);
      return {
        call: ({ kind, identified }) => producer.emit(kind, identified as never),
        ready: () => producer.ready(),
        close: () => producer.close(),
      };
    },
  },
  {
    name: 'queue-add',
    about: 'await queue.add of BullMQ, a job for each event, one call after the other',
    isWaited: true,
    open: async ({ place }) => {
      const queue = new Queue('events', {
        connection: { url: place.redisUrl },
        prefix: 'bench_add',
      });
      await queue.waitUntilReady();
      return { call: ({ kind, event }) => queue.add(kind, event), close: () => queue.close() };
    },
  },
];

/** Measures what an `emit` takes from its caller, and what emitting steadily does to its process. */
export async function emitBench({ calls, rounds, seconds }: EmitOptions) {
  const ground = await openGround();
  try {
    const settings = await describeGround(ground);
    console.log(JSON.stringify(settings, null, 2));
    const events = newEvents(calls);
    const callers = CALLERS.filter(({ name }) => name !== 'queue-add' || onPath('redis-server'));
    const samples = new Map<string, Float64Array[]>(callers.map(({ name }) => [name, []]));
    const delays = new Map<string, LoopDelay[]>();
    for (let round = 0; round <= rounds; round++) {
      for (const caller of callers) {
        await ground.redis?.flushall();
        const part = caller.isWaited ? events.slice(0, MAX_WAITED_CALLS) : events;
        const taken = await timeCalls(caller, ground, part);
        console.log(
          `${round === 0 ? 'warm-up' : `round ${round}`}: ${caller.name}: ${summary(taken)}`,
        );
        if (round > 0) samples.get(caller.name)?.push(taken);
      }
      for (const name of ['array-push', 'annals']) {
        if (round === 0) continue;
        await ground.redis?.flushall();
        const caller = CALLERS.find((each) => each.name === name) as Caller;
        const delay = await watchLoop(caller, ground, events, seconds);
        console.log(`round ${round}: event loop: ${JSON.stringify(delay)}`);
        delays.set(name, [...(delays.get(name) ?? []), delay]);
      }
    }
    const contestants = callers.map(({ name, about }): CallTimes => {
      const taken = samples.get(name) ?? [];
      const at = (share: number) => Math.round(median(taken.map((each) => quantile(each, share))));
      return {
        name,
        about,
        calls: taken[0]?.length ?? 0,
        p50Ns: at(0.5),
        p99Ns: at(0.99),
        p999Ns: at(0.999),
      };
    });
    const p50 = (name: string) => contestants.find((each) => each.name === name)?.p50Ns ?? NaN;
    return {
      contestants,
      timesCheaperThanQueueAdd: round1(p50('queue-add') / p50('annals')),
      timesOfArrayPush: round1(p50('annals') / p50('array-push')),
      eventLoop: Array.from(delays, ([name, each]) => ({
        name,
        eventsPerSecond: Math.round(median(each.map(({ eventsPerSecond }) => eventsPerSecond))),
        p50Ms: round1(median(each.map(({ p50Ms }) => p50Ms))),
        p99Ms: round1(median(each.map(({ p99Ms }) => p99Ms))),
        maxMs: round1(Math.max(...each.map(({ maxMs }) => maxMs))),
      })),
      calls,
      rounds,
      seconds,
      ground: settings,
    };
  } finally {
    await ground.close();
  }
}

function newEvents(count: number): NewEvent[] {
  return Array.from(eventsOf(0, { events: 2 * count, memories: 10_000 }), ({ kind, event }) => {
    const { id: _, occurredAt: __, ...rest } = event;
    return { kind, event: rest, identified: event };
  });
}

async function timeCalls(caller: Caller, ground: Ground, events: readonly NewEvent[]) {
  const { call, ready, close } = await caller.open(ground);
  const taken = new Float64Array(events.length);
  let index = 0;
  for (const event of events) {
    if (index % BURST === 0) {
      await nextTurn();
      await ready?.();
    }
    const since = performance.now();
    const result = call(event);
    if (caller.isWaited) await result;
    taken[index++] = (performance.now() - since) * 1e6;
  }
  await close();
  return taken.sort();
}

/** Emits a share every millisecond, and catches up where a millisecond was longer. */
async function watchLoop(
  caller: Caller,
  ground: Ground,
  events: readonly NewEvent[],
  seconds: number,
): Promise<LoopDelay> {
  const { call, close } = await caller.open(ground);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const since = performance.now();
  let sent = 0;
  for (;;) {
    const elapsed = performance.now() - since;
    if (elapsed >= seconds * 1000) break;
    for (const due = (elapsed / 1000) * STEADY_RATE; sent < due; sent++) {
      call(events[sent % events.length] as NewEvent);
    }
    await sleep(1);
  }
  const elapsed = performance.now() - since;
  delay.disable();
  await close();
  // A timer of a millisecond is due after one: only what comes on top of it is a delay.
  const ms = (nanoseconds: number) => Math.max(0, nanoseconds / 1e6 - 1);
  return {
    name: caller.name,
    eventsPerSecond: (sent / elapsed) * 1000,
    p50Ms: ms(delay.percentile(50)),
    p99Ms: ms(delay.percentile(99)),
    maxMs: ms(delay.max),
  };
}

const summary = (taken: Float64Array) =>
  [0.5, 0.99, 0.999].map((share) => `${Math.round(quantile(taken, share))} ns`).join(', ');
