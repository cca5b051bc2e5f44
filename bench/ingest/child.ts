/* A process of a contestant: the task is the argument, and what it says are `ChildMessage`s. */
import type { Place, Running } from '../contestants/contestant.ts';
import { CONTESTANTS, type ContestantName } from '../contestants/index.ts';
import type { Contestant } from '../contestants/contestant.ts';
import { eventsOf, type Load } from './load.ts';

export interface ChildTask {
  contestant: ContestantName;
  role: 'prepare' | 'producer' | 'worker';
  /** Which of the producers. */
  producer: number;
  load: Load;
  /** Events of the load that are emitted first, off the clock, if it is asked for. Default: 0. */
  warmUp?: number;
  place: Place;
}

/** What the bench says to its processes. */
export type Order = 'warm up' | 'go' | 'finish' | 'stop';

export interface Usage {
  cpuSeconds: number;
  peakRssMb: number;
}

export type ChildMessage =
  | { type: 'ready' }
  /** Events that were committed since the last such message, and when the last of them was. */
  | { type: 'committed'; events: number; at: number }
  | { type: 'done'; at: number }
  | { type: 'usage'; usage: Usage };

/** Milliseconds in which commits are told together. */
const TELL_EVERY_MS = 5;

process.once('disconnect', () => process.exit(1)); // ends with the process that started it
const task = JSON.parse(process.argv[2] ?? '') as ChildTask;
const contestant: Contestant = CONTESTANTS[task.contestant];
const tell = (message: ChildMessage) =>
  new Promise<void>((resolve) => process.send?.(message, () => resolve()));

let cpuAtGo = process.cpuUsage();
const usage = (): Usage => {
  const { user, system } = process.cpuUsage(cpuAtGo);
  return {
    cpuSeconds: (user + system) / 1e6,
    peakRssMb: process.resourceUsage().maxRSS / 1024,
  };
};

switch (task.role) {
  case 'prepare':
    await contestant.prepare?.(task.place);
    break;
  case 'producer':
    await produce();
    break;
  case 'worker':
    await consume();
}
process.exit();

/** The next order; they never come faster than they are waited for. */
function order(): Promise<Order> {
  return new Promise((resolve) => process.once('message', resolve));
}

async function produce(): Promise<void> {
  const { load, place, producer } = task;
  const emitting = (events: number) =>
    contestant.produce(place, [...eventsOf(producer, { ...load, events })]);
  const emit = await emitting(load.events);
  const work: Record<Exclude<Order, 'stop'>, () => Promise<void> | undefined> = {
    'warm up': async () => (await emitting(task.warmUp ?? 0))(),
    go: () => {
      cpuAtGo = process.cpuUsage();
      return emit();
    },
    finish: () => contestant.finish?.(place),
  };
  let next = order();
  await tell({ type: 'ready' });
  for (let given = await next; given !== 'stop'; given = await next) {
    await work[given]();
    next = order();
    await tell({ type: 'done', at: Date.now() });
  }
  await tell({ type: 'usage', usage: usage() });
}

async function consume(): Promise<void> {
  let [events, at] = [0, 0];
  let timer: NodeJS.Timeout | undefined;
  const committed = (more: number) => {
    if (more === 0) return;
    events += more;
    at = Date.now();
    timer ??= setTimeout(() => {
      timer = undefined;
      void tell({ type: 'committed', events, at });
      events = 0;
    }, TELL_EVERY_MS);
  };
  const running: Running | undefined = await contestant.consume?.(task.place, committed);
  let next = order();
  await tell({ type: 'ready' });
  await next;
  cpuAtGo = process.cpuUsage();
  next = order();
  await next;
  const used = usage();
  await running?.stop();
  await tell({ type: 'usage', usage: used });
}
