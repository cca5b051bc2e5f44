// A producer process for tests that kill it: its settings in the environment, its job as argument.
import { openSync, writeSync } from 'node:fs';
import { setImmediate as breathe, setTimeout as sleep } from 'node:timers/promises';

import { createProducer } from '../../src/producers/producer.ts';
import type { QueueLocation } from '../../src/queues/backend.ts';
import { sample } from './events.ts';

export interface ProducerJob {
  queue: QueueLocation;
  /**
   * `steady`: emits for ever, and writes the number of each event to `file` once `emit` has returned.
   * `flush`: emits, flushes, says so and stays. `exit`, `throw`: emits and ends in that way.
   * `insist`: emits, flushes until that succeeds, says each time whether it did, and closes.
   * `stop`: emits, says so, and closes at SIGTERM, within 1.5 s; nothing else ends it.
   * `measure`: emits in one go, then tells how long the calls took and what memory they needed.
   */
  mode: 'steady' | 'flush' | 'exit' | 'throw' | 'insist' | 'stop' | 'measure';
  events?: number;
  file?: string;
}

const { queue, mode, events = Infinity, file } = JSON.parse(process.argv[2] ?? '') as ProducerJob;
const producer = createProducer({ queue });
const emit = (n: number) => producer.emit('memory-access', sample('memory-access', n) as never);

if (mode === 'measure') {
  const microseconds = new Float64Array(events);
  let rss = 0;
  for (let n = 0; n < events; n++) {
    const event = sample('memory-access', n) as never;
    const begin = process.hrtime.bigint();
    producer.emit('memory-access', event);
    microseconds[n] = Number(process.hrtime.bigint() - begin) / 1000;
    if (n % 10_000 === 0) rss = Math.max(rss, process.memoryUsage.rss());
  }
  microseconds.sort();
  const at = (share: number) => microseconds[Math.floor(events * share)];
  const [rssMiB, stats] = [rss / 2 ** 20, producer.stats()];
  console.log(JSON.stringify({ p50: at(0.5), p99: at(0.99), rssMiB, stats }));
  process.exit();
}

const told = file === undefined ? undefined : openSync(file, 'w');
for (let n = 0; n < events; n++) {
  emit(n);
  if (told !== undefined) {
    writeSync(told, `${n}\n`);
    if (n % 10 === 0) await breathe();
  }
}
if (mode === 'exit') process.exit();
if (mode === 'throw') throw new Error('uncaught');
if (mode === 'insist') {
  // Nobody who traces it can be relied on to end it.
  for (let tries = 1; tries < 1000; tries++) {
    const isFlushed = await producer.flush().then(
      () => true,
      () => false,
    );
    console.log(isFlushed ? 'flushed' : 'refused');
    if (isFlushed) break;
    await sleep(50);
  }
  await producer.close();
  process.exit();
}
if (mode === 'stop') {
  const staying = setInterval(() => {}, 1000);
  process.once('SIGTERM', () => {
    clearInterval(staying);
    emit(events);
    void producer.close({ deadlineMs: 1500 }).then(() => console.log('closed'));
  });
} else setInterval(() => {}, 1000);
await producer.flush();
console.log('flushed');
