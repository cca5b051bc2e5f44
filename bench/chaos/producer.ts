/* A producer process that emits at a steady rate and is killed, frozen and cut off meanwhile. */
import { existsSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { SpoolFullError } from '../../src/errors.ts';
import { createProducer } from '../../src/openProducer.ts';
import type { QueueLocation } from '../../src/queues/backend.ts';
import { chaosEvent, openNotes, type Life } from './notes.ts';

export interface ProducerTask extends Life {
  queue: QueueLocation;
  folder: string;
  /** Events a second. */
  rate: number;
}

/** What the process says: how many emits the full spool refused; at the end, what is left. */
export interface ProducerMessage {
  refused: number;
  left?: number;
}

const task = JSON.parse(process.argv[2] ?? '') as ProducerTask;
const note = openNotes(task.folder, task);
const annals = createProducer({ queue: task.queue, durability: 'sync', onFull: 'throw' });

let isFinishing = false;
process.once('message', () => (isFinishing = true));
process.once('disconnect', () => process.exit(1)); // ends with the process that started it

let n = 0;
let refused = 0;
const tell = (message: ProducerMessage, done = () => {}) => process.send?.(message, done);
const emit = (which: number) => {
  const { kind, event } = chaosEvent(task, which);
  annals.emit(kind, event);
  note(which);
};

const since = performance.now();
while (!isFinishing) {
  const due = ((performance.now() - since) / 1000) * task.rate;
  // A freeze is not made up for.
  for (let burst = 0; n + refused < due && burst < task.rate / 10; burst++) {
    try {
      emit(n);
      if (n % 50 === 49) emit(n - 1); // now and then one is emitted twice
      n++;
    } catch (error) {
      if (!(error instanceof SpoolFullError)) throw error;
      refused++;
      tell({ refused });
      break;
    }
  }
  await sleep(10);
}

// All that any producer left in the spool is delivered before the audit.
const spool = process.env['ANNALS_SPOOL_DIR'] ?? '';
const left = () => {
  const { buffered, spooled } = annals.stats();
  return buffered + spooled + segmentsIn(spool);
};
const giveUpAt = Date.now() + 120_000;
while (left() > 0 && Date.now() < giveUpAt) await sleep(50);
await annals.close();
tell({ refused, left: left() }, () => process.exit());

/** Files that hold events, whoever they belong to; a producer looks for orphans by itself. */
function segmentsIn(folder: string): number {
  if (!existsSync(folder)) return 0;
  try {
    const paths = readdirSync(folder, { recursive: true });
    return paths.filter((path) => String(path).endsWith('.log')).length;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return 1; // a folder went while it was read: look again
  }
}
