import { createReadStream } from 'node:fs';
import { basename } from 'node:path';

import { z } from 'zod';

import { InvalidFileError } from '../errors.ts';
import { readLines } from '../lines.ts';

/** What a message of each role is recorded as. */
export const EVENT_TYPES = {
  user: 'user_input',
  assistant: 'agent_response',
  tool: 'tool_result',
  function: 'tool_result',
  system: 'system_prompt',
  developer: 'system_prompt',
} as const;

const schema = z.looseObject({
  task_id: z.int().min(0),
  trial: z.int().min(0),
  /** The session's quality, 0..1. */
  reward: z.number().min(0).max(1),
  user_id: z.string().min(1).max(256),
  messages: z.array(
    z.looseObject({
      role: z.enum(Object.keys(EVENT_TYPES) as (keyof typeof EVENT_TYPES)[]),
      tool_calls: z
        .array(
          z.looseObject({
            id: z.string().nullish(),
            // Calls of other types than `function` have none.
            function: z
              .looseObject({
                name: z.string(),
                /** JSON text as a rule; some programs write the object itself. */
                arguments: z.unknown(),
              })
              .nullish(),
          }),
        )
        .nullish(),
    }),
  ),
});

/** One recorded conversation in the OpenAI chat format. */
export type Conversation = z.output<typeof schema>;

/** A conversation and where it stands. */
export interface ConversationLine {
  conversation: Conversation;
  /** `file:line`, for messages. */
  place: string;
  /** Length of its text. */
  size: number;
}

/** Bytes of one conversation at most. */
const MAX_LINE_BYTES = 64 * 1024 * 1024;

/** Reads a file of one conversation a line, one after the other. */
export async function* readConversations(file: string): AsyncGenerator<ConversationLine> {
  for await (const line of readLines(createReadStream(file), MAX_LINE_BYTES)) {
    const place = `${basename(file)}:${line.number}`;
    if ('fault' in line) throw new InvalidFileError(`${place}: ${line.fault}`);
    yield { conversation: parse(line.text, place), place, size: line.text.length };
  }
}

function parse(text: string, place: string): Conversation {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new InvalidFileError(`${place}: the line is not JSON`, { cause });
  }
  const parsed = schema.safeParse(value);
  // Not the schema's copy: what is recorded is the message as it came, keys in their order.
  if (parsed.success) return value as Conversation;
  const issue = parsed.error.issues[0];
  throw new InvalidFileError(
    `${place}: no conversation: ${issue?.path.map(String).join('.')}: ${issue?.message}`,
    { cause: parsed.error },
  );
}
