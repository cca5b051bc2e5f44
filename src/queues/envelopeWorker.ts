import type { Job } from 'bullmq';

import { BoundedWorker } from './boundedWorker.ts';
import type { EventKind } from './catalogue.ts';
import { openText, type Envelope, type OpenedEnvelope } from './envelope.ts';
import type { LinesOf } from './eventList.ts';

/** Jobs that are right as they are, opened. */
const opened = new WeakMap<Job, OpenedEnvelope>();

/** What is in a job, if its text alone told; the data of any other is to be opened. */
export const openedOf = (job: Job): OpenedEnvelope | undefined => opened.get(job);

/** A worker whose jobs are envelopes of the kind that its queue is named after. */
export class EnvelopeWorker<Result> extends BoundedWorker<Envelope, Result> {
  /** Makes lines of events as they are read. Default: none are made. */
  linesOf: LinesOf | undefined;

  protected override takeText(job: Job<Envelope, Result>, text: string): boolean {
    const envelope = openText(this.name as EventKind, text, this.linesOf);
    if (envelope) opened.set(job, envelope);
    return envelope !== undefined;
  }
}
