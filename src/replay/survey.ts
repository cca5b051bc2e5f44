import { basename } from 'node:path';

import { InvalidEventError, InvalidFileError } from '../errors.ts';
import { encodeEvent } from '../queues/eventEncoding.ts';
import { readConversations } from './conversation.ts';
import { addUp, expectedFigures, FirstSeen, noFigures } from './figures.ts';
import type { TaskSpan } from './parents.ts';
import { recordsOf, type Naming, type Records } from './records.ts';

/**
 * Checks every line and event of the file, and counts what it must become.
 *
 * @throws {InvalidFileError} naming the first wrong line
 */
export async function surveyFile(file: string, naming: Naming, signal: AbortSignal) {
  const survey = {
    figures: noFigures(),
    /** Of each task, by its session's name. */
    spans: new Map<string, TaskSpan>(),
    events: 0,
    callsWithoutMemory: 0,
  };
  const firstSeen = new FirstSeen();
  const places = new Map<string, string>();
  let index = 0;
  for await (const { conversation, place } of readConversations(file)) {
    signal.throwIfAborted();
    const records = recordsOf(conversation, index++, naming);
    const { session, task, userId } = records;
    const earlier = places.get(session.sessionId);
    if (earlier) {
      throw new InvalidFileError(
        `${place}: task_id ${conversation.task_id}, trial ${conversation.trial} is the conversation of ${earlier} already`,
      );
    }
    places.set(session.sessionId, place);
    checkEvents(records, place);

    const { startedAt, endedAt } = session;
    const span = survey.spans.get(task);
    if (!span) {
      survey.spans.set(task, { taskId: conversation.task_id, userId, startedAt, endedAt });
    } else if (endedAt > span.endedAt) span.endedAt = endedAt;
    survey.events += records.events.length;
    survey.callsWithoutMemory += records.callsWithoutMemory;
    addUp(survey.figures, expectedFigures(records, firstSeen.of([records])));
  }
  if (index === 0) throw new InvalidFileError(`${basename(file)}: holds no conversation`);
  return survey;
}

function checkEvents(records: Records, place: string): void {
  try {
    for (const { kind, event } of records.events) {
      encodeEvent(kind, { ...event, occurredAt: (event.occurredAt as Date).toISOString() });
    }
  } catch (error) {
    if (!(error instanceof InvalidEventError)) throw error;
    throw new InvalidFileError(`${place}: ${error.message}`, { cause: error });
  }
}

/** Conversations, and characters of them, that are held at once. */
const CHUNK = { conversations: 100, size: 8 * 1024 * 1024 };

/** The file once more, some conversations at a time. */
export async function* chunksOf(file: string, naming: Naming): AsyncGenerator<Records[]> {
  let chunk: Records[] = [];
  let held = 0;
  let index = 0;
  for await (const { conversation, size } of readConversations(file)) {
    chunk.push(recordsOf(conversation, index++, naming));
    held += size;
    if (chunk.length < CHUNK.conversations && held < CHUNK.size) continue;
    yield chunk;
    [chunk, held] = [[], 0];
  }
  if (chunk.length > 0) yield chunk;
}
