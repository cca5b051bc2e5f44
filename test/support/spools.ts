import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { expect } from 'vitest';

import type { Producer } from '../../src/producers/producer.ts';
import type { QueueLocation } from '../../src/queues/backend.ts';
import { EVENT_KINDS } from '../../src/queues/events.ts';
import { openQueues } from './pipeline.ts';

/** Segment files below a spool's folder, oldest first. */
export function segmentFiles(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.log'))
    .toSorted()
    .map((name) => join(folder, name));
}

/** The ids of all events that wait in the queues, as often and in the order in which they came. */
export async function queuedIds(location: QueueLocation): Promise<string[]> {
  const queues = openQueues(location);
  try {
    const jobs = await Promise.all(EVENT_KINDS.map((kind) => queues[kind].getWaiting(0, -1)));
    return jobs
      .flat()
      .flatMap(({ data }) => data.events.map((event) => (event as { id: string }).id));
  } finally {
    await queues.close();
  }
}

/** The equation that holds at every moment. */
export function expectBalanced(producer: Producer): void {
  const { accepted, delivered, dropped, buffered, spooled } = producer.stats();
  expect(delivered + dropped + buffered + spooled).toBe(accepted);
  expect(Math.min(delivered, dropped, buffered, spooled)).toBeGreaterThanOrEqual(0);
}

/** Waits, as long as it takes, for a state of the producer, which stays in balance all the while. */
export async function reaches(
  producer: Producer,
  isSo: (stats: ReturnType<Producer['stats']>) => boolean,
): Promise<void> {
  await expect
    .poll(
      () => {
        expectBalanced(producer);
        return isSo(producer.stats());
      },
      { timeout: 40_000, interval: 20 },
    )
    .toBe(true);
}
