import type { Job, Queue } from 'bullmq';

/**
 * Reads a job. One that is gone is undefined, and so is one whose data is not JSON, which somebody
 * wrote past BullMQ: its queue is to be read all the same, and nobody is to see the parser's message,
 * which quotes the data.
 *
 * @param onUnreadable - called for the latter
 */
export async function readJob<Read extends Job>(
  queue: Queue<Read>,
  id: string,
  onUnreadable: () => void = () => {},
): Promise<Read | undefined> {
  try {
    return (await queue.getJob(id)) as Read | undefined;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    onUnreadable();
    return undefined;
  }
}
