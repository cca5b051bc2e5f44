import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { Closer } from '../src/closer.ts';
import { InvalidFileError } from '../src/errors.ts';
import { createLogger } from '../src/logger.ts';
import { prepareQueues, type QueueLocation } from '../src/queues/backend.ts';
import type { Naming } from '../src/replay/records.ts';
import { replay, type ReplayReport } from '../src/replay/replay.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { snapshot } from './support/events.ts';
import { removeFolder } from './support/files.ts';
import { describeBackends, drained, openQueues, testConfig } from './support/pipeline.ts';

/** Real conversations that are kept beside the project, not in it. */
const REAL_PATH = '../shared/real-traces/airline-gpt-4o.ndjson';
const REAL = fileURLToPath(new URL(`../${REAL_PATH}`, import.meta.url));

const NAMING: Naming = {
  source: 'airline',
  agentId: 'gpt-4o-airline',
  startAt: new Date('2024-05-15T15:00:00Z'),
};

const call = (id: string, name: string, args: unknown) => ({
  id,
  type: 'function',
  function: { name, arguments: typeof args === 'string' ? args : JSON.stringify(args) },
});

/** What goes wrong in real traces: call ids used twice, arguments that are no JSON, odd bytes. */
const HANDMADE = [
  {
    task_id: 0,
    trial: 0,
    reward: 1,
    user_id: 'ann',
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'zero \0 and lone \ud800' },
      {
        role: 'assistant',
        content: null,
        tool_calls: [
          call('call_1', 'get_user_details', { user_id: 'ann' }),
          call('call_2', 'get_reservation_details', { reservation_id: 'R1' }),
        ],
      },
      { role: 'tool', tool_call_id: 'call_1', name: 'get_user_details', content: '{}' },
      {
        role: 'assistant',
        content: [{ type: 'text', text: 'Cancelled.' }],
        tool_calls: [
          call('call_1', 'cancel_reservation', { reservation_id: 'R1' }),
          call('call_1', 'cancel_reservation', '{"reservation_id": R1'),
          call('', 'book_reservation', 'null'),
        ],
      },
    ],
  },
  { task_id: 0, trial: 1, reward: 0.25, user_id: 'ann', messages: [] },
  {
    task_id: 7,
    trial: 0,
    reward: 0,
    user_id: 'bob',
    messages: [
      {
        role: 'assistant',
        tool_calls: [
          call('call_1', 'get_reservation_details', { reservation_id: 'R1' }),
          call('call_2', 'get_reservation_details', {}),
          call('call_3', 'get_user_details', 'nobody'),
          call('call_4', 'toString', {}),
          { id: 'call_5', type: 'custom', custom: { name: 'shell', input: 'ls' } },
        ],
      },
    ],
  },
];

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'annals-replay-'));
});
afterAll(() => removeFolder(folder));

function fileOf(lines: unknown[], end = '\n'): string {
  const file = join(folder, 'airline-test.ndjson');
  const texts = lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line)));
  writeFileSync(file, texts.map((text) => text + end).join(''));
  return file;
}

async function runReplay(
  db: TestDatabase,
  queue: QueueLocation,
  file: string,
  naming = NAMING,
  signal = new AbortController().signal,
): Promise<ReplayReport> {
  const config = testConfig();
  const log = createLogger(config);
  const closer = new Closer(log);
  try {
    return await replay({
      file,
      naming,
      databaseUrl: db.url,
      queue,
      config,
      log,
      closer,
      signal,
    });
  } finally {
    await closer.close(10_000);
  }
}

const TABLES = [
  'User',
  'AI_Agent',
  'AgentSession',
  'ModuleState',
  'InteractionMemory',
  'SessionEvent',
  'SessionMetric',
  'StateTransition',
  'MemoryAccess',
];

async function rowsOf(db: TestDatabase): Promise<Record<string, number>> {
  const counts = TABLES.map(async (table) => {
    const [row] = await db.sql(`SELECT count(*)::int AS count FROM "${table}"`);
    return [table, row.count] as const;
  });
  return Object.fromEntries(await Promise.all(counts));
}

describeBackends('replay', (locate) => {
  let db: TestDatabase;
  let queue: QueueLocation;

  beforeEach(async () => {
    db = await createTestDatabase();
    queue = locate(db);
  });
  afterEach(() => db.drop());

  it.skipIf(!existsSync(REAL))(
    `stores 200 real conversations, and a second replay changes nothing (skipped without ${REAL_PATH})`,
    async () => {
      const first = await runReplay(db, queue, REAL);
      const after = await snapshot(db);
      const second = await runReplay(db, queue, REAL);
      expect(second).toEqual(first);
      expect(await snapshot(db)).toBe(after);

      expect(first).toMatchObject({
        ok: true,
        sessions: { parents: 50, children: 200 },
        sessionEvents: 5108,
        eventTypes: { user_input: 1490, agent_response: 2454, tool_result: 1164 },
        memoryAccesses: 497,
        memories: 130,
        stateTransitions: 242,
        transitionsByTool: {
          book_reservation: 53,
          cancel_reservation: 69,
          update_reservation_flights: 104,
          update_reservation_baggages: 14,
          update_reservation_passengers: 2,
        },
        sessionMetrics: 600,
        metricSums: { reward: 84, turns: 5108, toolCalls: 1164 },
        users: 34,
        agents: 1,
        totalSessions: 200,
        deadLetters: 0,
        missing: 0,
      });
      expect(await rowsOf(db)).toEqual({
        User: 34,
        AI_Agent: 1,
        AgentSession: 250,
        ModuleState: 111,
        InteractionMemory: 130,
        SessionEvent: 5108,
        SessionMetric: 600,
        StateTransition: 242,
        MemoryAccess: 497,
      });
      const accessed = await db.sql(
        `SELECT "id", "accessCount" FROM "InteractionMemory"
         WHERE "id" IN ('reservation:H8Q05L', 'user:sophia_silva_7557') ORDER BY 1`,
      );
      expect(accessed).toEqual([
        { id: 'reservation:H8Q05L', accessCount: 15 },
        { id: 'user:sophia_silva_7557', accessCount: 13 },
      ]);
      const [{ reward, calls }] = await db.sql(
        `SELECT sum("metricValue") FILTER (WHERE "metricType" = 'reward') AS reward,
           sum("metricValue") FILTER (WHERE "metricType" = 'tool_calls') AS calls
         FROM "SessionMetric"`,
      );
      expect({ reward, calls }).toEqual({ reward: 84, calls: 1164 });
      const [child] = await db.sql(
        `SELECT p."sessionId" AS parent, c.* FROM "AgentSession" c
         JOIN "AgentSession" p ON p."id" = c."parentSessionId" WHERE c."sessionId" = 'airline-0-0'`,
      );
      expect(child).toMatchObject({
        parent: 'airline-0',
        userId: 'mia_li_3668',
        agentId: 'gpt-4o-airline',
        status: 'completed',
        qualityScore: 0,
      });
    },
  );

  it('records a conversation as the table of real traces says, whatever the agent wrote', async () => {
    const report = await runReplay(db, queue, fileOf(HANDMADE, '\r\n'));
    expect(report).toMatchObject({
      ok: true,
      sessions: { parents: 2, children: 3 },
      eventTypes: { system_prompt: 1, user_input: 1, agent_response: 3, tool_result: 1 },
      memoryAccesses: 3,
      memories: 2,
      transitionsByTool: { cancel_reservation: 2, book_reservation: 1 },
      moduleStates: 1,
      metricSums: { reward: 1.25, turns: 6, toolCalls: 10 },
      users: 2,
      totalSessions: 3,
      callsWithoutMemory: 2,
    });
    const events = await db.sql(
      `SELECT e."sequence", e."occurredAt"::text AS at, e."eventData" AS data
       FROM "SessionEvent" e JOIN "AgentSession" s ON s."id" = e."sessionId"
       WHERE s."sessionId" = 'airline-0-0' ORDER BY 1`,
    );
    expect(events.map(({ sequence, at }) => [sequence, at]).at(-1)).toEqual([
      4,
      '2024-05-15 15:00:04',
    ]);
    expect(events[1].data).toEqual({ role: 'user', content: 'zero \ufffd and lone \ufffd' });
    expect(events[2].data).toEqual(HANDMADE[0]?.messages[2]);
    const transitions = await db.sql(
      `SELECT "triggerType", "triggerId", "transitionData" AS data FROM "StateTransition"
       ORDER BY length("transitionData"::text)`,
    );
    expect(transitions).toEqual([
      { triggerType: 'agent_decision', triggerId: null, data: 'null' },
      { triggerType: 'agent_decision', triggerId: 'call_1', data: { reservation_id: 'R1' } },
      { triggerType: 'agent_decision', triggerId: 'call_1', data: '{"reservation_id": R1' },
    ]);
    const sessions = await db.sql(
      `SELECT "sessionId" AS name, "startedAt"::text AS starts, "endedAt"::text AS ends
       FROM "AgentSession" ORDER BY 1`,
    );
    expect(sessions).toEqual([
      { name: 'airline-0', starts: '2024-05-15 15:00:00', ends: '2024-05-15 15:01:00' },
      { name: 'airline-0-0', starts: '2024-05-15 15:00:00', ends: '2024-05-15 15:00:04' },
      { name: 'airline-0-1', starts: '2024-05-15 15:01:00', ends: '2024-05-15 15:01:00' },
      { name: 'airline-7', starts: '2024-05-15 15:02:00', ends: '2024-05-15 15:02:00' },
      { name: 'airline-7-0', starts: '2024-05-15 15:02:00', ends: '2024-05-15 15:02:00' },
    ]);
    const [shared] = await db.sql(
      `SELECT "userId", "accessCount" FROM "InteractionMemory" WHERE "id" = 'reservation:R1'`,
    );
    expect(shared).toEqual({ userId: 'ann', accessCount: 2 });
  });

  it('counts only what its file names, and again what another replay took over', async () => {
    const file = fileOf(HANDMADE);
    await runReplay(db, queue, file, { ...NAMING, source: 'other' });
    const report = await runReplay(db, queue, file);
    expect(report).toMatchObject({
      ok: true,
      sessions: { parents: 2, children: 3 },
      memoryAccesses: 3,
      memories: 2,
      users: 2,
      totalSessions: 6,
    });
  });

  it('reports dead letters and rows too many', async () => {
    // The database refuses some events: what it would take a fault of ours to bring about.
    await db.sql(`ALTER TABLE "SessionEvent" ADD CHECK ("sequence" <> 3)`);
    const file = fileOf(HANDMADE);
    const failed = await runReplay(db, queue, file);
    expect(failed).toMatchObject({ ok: false, deadLetters: 1, missing: 0, sessionEvents: 5 });
    expect(failed.deadLetterReasons[0]).toContain('SessionEvent_sequence_check');

    await db.sql(`ALTER TABLE "SessionEvent" DROP CONSTRAINT "SessionEvent_sequence_check"`);
    expect(await runReplay(db, queue, file)).toMatchObject({ ok: true, deadLetters: 0 });

    await db.sql(
      `INSERT INTO "SessionEvent" ("id", "sessionId", "eventType", "eventData", "sequence")
       SELECT gen_random_uuid(), "id", 'user_input', '{}', 9 FROM "AgentSession"
       WHERE "sessionId" = 'airline-0-0'`,
    );
    const tooMany = await runReplay(db, queue, file);
    expect(tooMany).toMatchObject({ ok: false, sessionEvents: 7, expected: { sessionEvents: 6 } });
  });

  it('stops when told to, and is completed by the next', async () => {
    const controller = new AbortController();
    await prepareQueues(queue);
    const queues = openQueues(queue);
    try {
      // Nothing is stored from a paused queue, so the replay is certainly under way.
      await queues['session-event'].pause();
      const stopped = runReplay(db, queue, fileOf(HANDMADE), NAMING, controller.signal);
      setTimeout(() => controller.abort(new Error('stop')), 1500);
      await expect(stopped).rejects.toThrow('stop');
      expect((await rowsOf(db))['SessionEvent']).toBe(0);
      await queues['session-event'].resume();
      expect((await runReplay(db, queue, fileOf(HANDMADE))).ok).toBe(true);
      await drained(queues);
      expect((await rowsOf(db))['SessionEvent']).toBe(6);
    } finally {
      await queues.close();
    }
  });
});

describe('a wrong file', () => {
  const right = HANDMADE[2];
  const big = { role: 'user', content: 'x'.repeat(300 * 1024) };

  it.each([
    ['no JSON', 'airline-test.ndjson:2: the line is not JSON', [right, '{"task_id": 1,']],
    ['no conversation', /:1: no conversation: reward: /, [{ ...right, reward: 2 }]],
    ['an unknown role', /:1: .*messages\.0\.role/, [{ ...right, messages: [{ role: 'x' }] }]],
    ['too large an event', /:1: session-event event .* bytes/, [{ ...right, messages: [big] }]],
    ['a conversation twice', /:3: .*airline-test\.ndjson:1 already/, [right, '', right]],
    ['nothing', /holds no conversation/, []],
  ])('with %s is refused before anything is written', async (_, message, lines) => {
    const db = await createTestDatabase();
    try {
      const queue: QueueLocation = { kind: 'postgres', url: db.url, prefix: 'annals' };
      const refused = runReplay(db, queue, fileOf(lines));
      await expect(refused).rejects.toThrow(message);
      await expect(refused).rejects.toBeInstanceOf(InvalidFileError);
      expect(Object.values(await rowsOf(db)).every((count) => count === 0)).toBe(true);
    } finally {
      await db.drop();
    }
  });
});
