import { EVENT_KINDS, type EventKind } from '../../src/queues/events.ts';
import { Dice } from '../../src/demo/dice.ts';

/** A job's data as somebody might write it: text, or bytes that are no text. */
export interface Payload {
  /** What was done to it, for people. */
  what: string;
  kind: EventKind;
  data: string | Buffer;
  /** Options of the job, as a foreign producer might set them. */
  opts: Record<string, unknown>;
}

/** Rows that right events may refer to. */
export const PARENTS = {
  memoryId: 'memory',
  stateId: 'state',
  sessionId: 'session',
  agentId: 'agent',
};

/** Makes the n-th payload of a seed; the same each time. */
export function makePayload(seed: number, n: number): Payload {
  const dice = new Stream(seed, n);
  const kind = dice.pick(EVENT_KINDS);
  const envelope = {
    v: 1,
    events: Array.from({ length: 1 + dice.below(8) }, () => rightEvent(kind, dice)),
  };
  const [what, make] = n % 1000 === 999 ? dice.pick(HUGE) : dice.pick(SHAPES);
  const data = make({ kind, envelope, dice });
  return {
    what,
    kind,
    data: typeof data === 'string' || Buffer.isBuffer(data) ? data : JSON.stringify(data),
    opts: dice.pick(OPTIONS),
  };
}

/** Options with which a foreign producer might lose a dead letter, or repeat it for ever. */
const OPTIONS: Record<string, unknown>[] = [
  {},
  {},
  {},
  { removeOnFail: true },
  { removeOnComplete: true },
  { attempts: 3, backoff: 1 },
  { attempts: 5, backoff: { type: 'no-such', delay: 5 } },
  { lifo: true },
  { priority: 7 },
  { delay: 3 },
];

/** As many random numbers as one likes. */
class Stream {
  #dice: Dice;
  #left = 10;
  #block = 0;

  readonly #key: [seed: number, n: number];

  constructor(...key: [seed: number, n: number]) {
    this.#key = key;
    this.#dice = new Dice(...key, 0);
  }

  next(): number {
    if (this.#left-- === 0) {
      this.#dice = new Dice(...this.#key, ++this.#block);
      this.#left = 9;
    }
    return this.#dice.next();
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }
}

type Json = unknown;
interface Context {
  kind: EventKind;
  envelope: { v: number; events: Record<string, Json>[] };
  dice: Stream;
}

function uuid(dice: Stream): string {
  const hex = () =>
    dice
      .below(2 ** 32)
      .toString(16)
      .padStart(8, '0');
  const [a, b, c, d] = [hex(), hex(), hex(), hex()];
  return `${a}-${b.slice(0, 4)}-4${b.slice(5)}-8${c.slice(1, 4)}-${c.slice(4)}${d}`;
}

function rightEvent(kind: EventKind, dice: Stream): Record<string, Json> {
  const base = {
    id: uuid(dice),
    occurredAt: new Date(Date.UTC(2024, 4, 15) + dice.below(1e9)).toISOString(),
  };
  switch (kind) {
    case 'memory-access':
      return {
        ...base,
        memoryId: PARENTS.memoryId,
        accessType: 'read',
        accessedBy: 'agent',
        accessorType: 'agent',
        usefulness: dice.next(),
      };
    case 'transition':
      return {
        ...base,
        stateId: PARENTS.stateId,
        triggerType: 'test',
        transitionData: { n: dice.below(100) },
      };
    case 'metrics':
      return dice.below(2) === 0
        ? {
            ...base,
            scope: 'session',
            sessionId: PARENTS.sessionId,
            metricType: 'n',
            metricValue: dice.next(),
          }
        : {
            ...base,
            scope: 'agent',
            agentId: PARENTS.agentId,
            metricType: 'n',
            metricValue: dice.next(),
          };
    case 'session-event':
      return {
        ...base,
        sessionId: PARENTS.sessionId,
        eventType: 'n',
        eventData: { n: 1 },
        sequence: dice.below(100),
      };
  }
}

/** A field of each kind that takes any JSON, or else any text. */
const FREE_FIELD: Record<EventKind, string> = {
  'memory-access': 'context',
  transition: 'transitionData',
  metrics: 'metadata',
  'session-event': 'eventData',
};

const KEYS = [
  '__proto__',
  'constructor',
  'prototype',
  'toString',
  'toJSON',
  'hasOwnProperty',
  'then',
  'length',
  '',
  '\u0000',
  '\ud800',
  'id',
  'v',
  'events',
];

const JUNK: Json[] = [
  null,
  true,
  false,
  0,
  -0,
  -1,
  0.1,
  2 ** 31,
  -(2 ** 31) - 1,
  2 ** 53,
  1e308,
  5e-324,
  '',
  ' ',
  'NaN',
  'Infinity',
  '-Infinity',
  'null',
  'undefined',
  '\u0000',
  'a\u0000b',
  '\ud800',
  '\udfff\ud800',
  '\u202e',
  '\ufeff',
  'x'.repeat(3000),
  '\'; DROP TABLE "MemoryAccess"; --',
  '$1',
  '{}',
  '[]',
  '\\',
  '\\u0000',
  [],
  {},
  [[]],
  [null],
  { a: undefined },
  { $numberLong: '1' },
  '0000-01-01T00:00:00Z',
  '9999-12-31T23:59:60Z',
  '2024-02-30T00:00:00Z',
  '+275760-09-13T00:00:00Z',
  '00000000-0000-0000-0000-000000000000',
  'ffffffff-ffff-ffff-ffff-ffffffffffff',
  Array.from({ length: 300 }, (_, n) => n),
];

/** Changes something somewhere within the value. */
function mutate(value: Json, dice: Stream): Json {
  if (typeof value !== 'object' || value === null || dice.below(6) === 0) return dice.pick(JUNK);
  if (Array.isArray(value)) {
    const copy = [...value];
    const at = dice.below(copy.length + 1);
    const way = dice.below(4);
    if (way === 0) copy.splice(at, 1);
    else if (way === 1) copy.splice(at, 0, dice.pick(JUNK));
    else if (way === 2 && copy.length > 0) copy.push(copy[dice.below(copy.length)]);
    else if (copy.length > 0) copy[at % copy.length] = mutate(copy[at % copy.length], dice);
    return copy;
  }
  const entries = Object.entries(value);
  const at = dice.below(entries.length);
  const way = dice.below(5);
  if (way === 0) entries.splice(at, 1);
  else if (way === 1) entries.push([dice.pick(KEYS), dice.pick(JUNK)]);
  else if (entries[at]) entries[at] = [entries[at][0], mutate(entries[at][1], dice)];
  return Object.fromEntries(entries); // which keeps a key named __proto__ what it is
}

const nested = (depth: number, dice: Stream) =>
  dice.below(2) === 0
    ? '['.repeat(depth) + ']'.repeat(depth)
    : '{"a":'.repeat(depth) + '1' + '}'.repeat(depth);

/** The envelope as text, with `text` as the free field of one of its events. */
function withText(
  { kind, envelope, dice }: Context,
  text: string,
  field = FREE_FIELD[kind],
): string {
  const event = dice.pick(envelope.events);
  event[field] = 'PLACE';
  return JSON.stringify(envelope).replace('"PLACE"', () => text);
}

type Shape = [what: string, make: (context: Context) => Json];

const SHAPES: Shape[] = [
  ['right', ({ envelope }) => envelope],
  ['mutated', ({ envelope, dice }) => mutate(envelope, dice)],
  [
    'an event mutated',
    ({ envelope, dice }) => {
      const at = dice.below(envelope.events.length);
      return {
        ...envelope,
        events: envelope.events.map((event, n) => (n === at ? mutate(event, dice) : event)),
      };
    },
  ],
  [
    'mutated many times',
    ({ envelope, dice }) => {
      let value: Json = envelope;
      for (let n = dice.below(12); n >= 0; n--) value = mutate(value, dice);
      return value;
    },
  ],
  [
    'another kind',
    ({ envelope, dice }) => ({ ...envelope, events: [rightEvent(dice.pick(EVENT_KINDS), dice)] }),
  ],
  ['no envelope', ({ dice }) => dice.pick(JUNK)],
  [
    'a wrong version',
    ({ envelope, dice }) => ({ ...envelope, v: dice.pick([0, 2, '1', null, [1], 1.5, { v: 1 }]) }),
  ],
  ['wrong events', ({ dice }) => ({ v: 1, events: dice.pick(JUNK) })],
  ['nested', (context) => withText(context, nested(1 + context.dice.below(400), context.dice))],
  [
    'nested deeply',
    (context) => withText(context, nested(400 + context.dice.below(30_000), context.dice)),
  ],
  ['nothing but nesting', ({ dice }) => nested(1 + dice.below(30_000), dice)],
  [
    'a prototype',
    (context) =>
      withText(
        context,
        '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}',
      ),
  ],
  [
    'a prototype as an event',
    ({ envelope }) =>
      JSON.stringify(envelope).replace('{"id"', '{"__proto__":{"usefulness":1},"id"'),
  ],
  ['a key twice', ({ envelope }) => JSON.stringify(envelope).replace('{"id"', '{"id":"x","id"')],
  [
    'numbers beyond numbers',
    (context) =>
      withText(
        context,
        context.dice.pick(['1e999', '-1e999', '1'.repeat(400), '0.1e-999', '-0', '1E+400']),
        context.kind === 'metrics' ? 'metricValue' : undefined,
      ),
  ],
  [
    'escapes',
    (context) =>
      withText(
        context,
        context.dice.pick([
          String.raw`"\u0000"`,
          String.raw`"\ud800"`,
          String.raw`{"\u0000":1}`,
          String.raw`{"\udc00":"\ud800"}`,
        ]),
      ),
  ],
  [
    'a long array',
    (context) => withText(context, JSON.stringify(Array.from({ length: 20_000 }, () => 0))),
  ],
  [
    'broken bytes',
    ({ envelope, dice }) => {
      const bytes = Buffer.from(JSON.stringify(envelope));
      for (let n = dice.below(6); n >= 0; n--) bytes[dice.below(bytes.length)] = dice.below(256);
      return bytes;
    },
  ],
  [
    'cut off',
    ({ envelope, dice }) => {
      const bytes = Buffer.from(JSON.stringify(envelope));
      return bytes.subarray(0, dice.below(bytes.length));
    },
  ],
  [
    'noise',
    ({ dice }) => Buffer.from(Array.from({ length: dice.below(200) }, () => dice.below(256))),
  ],
];

const MEGABYTE = 1024 * 1024;

const HUGE: Shape[] = [
  ['10 MB in an event', (context) => withText(context, JSON.stringify('x'.repeat(10 * MEGABYTE)))],
  [
    '20,000 events',
    ({ kind, dice }) => {
      const one = rightEvent(kind, dice);
      return { v: 1, events: Array.from({ length: 20_000 }, () => ({ ...one, id: uuid(dice) })) };
    },
  ],
  ['10 MB of nothing', () => `{"v":1,"events":[${'null,'.repeat(2 * MEGABYTE)}null]}`],
  ['10 MB of brackets', () => '['.repeat(5 * MEGABYTE) + ']'.repeat(5 * MEGABYTE)],
];
