import { Option } from 'commander';

import type { QueueLocation } from '../src/queues/backend.ts';
import { onPath } from '../test/support/programs.ts';

export type QueueChoice = QueueLocation['kind'] | 'both';

/** `--queue`, for what is to be proved on both back ends. */
export const queueOption = () =>
  new Option('--queue <kind>', 'queue back end')
    .choices(['redis', 'postgres', 'both'])
    .default('both');

/** The back ends that are meant, of those that this machine has. */
export function backends(queue: QueueChoice): QueueLocation['kind'][] {
  if (queue !== 'both') return [queue];
  if (onPath('redis-server')) return ['redis', 'postgres'];
  console.log('redis-server is not on the PATH: queues on PostgreSQL only');
  return ['postgres'];
}
