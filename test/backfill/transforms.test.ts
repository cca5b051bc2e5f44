import { randomBytes } from 'node:crypto';

import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { canonicalJson, sha256Hex, toStorable } from '../../src/json.ts';
import { TRANSFORMS } from '../../src/backfill/transforms/index.ts';
import { createMemory } from '../../src/services/memories.ts';
import { upsertModuleState } from '../../src/services/moduleStates.ts';
import { createSession } from '../../src/services/sessions.ts';
import { contents, createFixture, STATES, type Fixture } from './fixture.ts';

// Odd rows, side by side: what each becomes. All of them go through one run.

/** More than the index on tags takes. */
const LARGE = randomBytes(2000).toString('hex');

const CONTEXTS: [unknown, { purpose: string | null; tags: string[] }][] = [
  [
    { purpose: 'help', tags: ['a', 'b'] },
    { purpose: 'help', tags: ['a', 'b'] },
  ],
  [
    { intent: 'ask', categories: ['c'] },
    { purpose: 'ask', tags: ['c'] },
  ],
  [
    { goal: 'win', purpose: '', intent: 7 },
    { purpose: 'win', tags: [] },
  ],
  [{ tags: ['a', 1, ['b'], null, { c: 1 }, 'd', 'a'] }, { purpose: null, tags: ['a', 'd', 'a'] }],
  [
    { tags: 'not a list', categories: ['x'] },
    { purpose: null, tags: ['x'] },
  ],
  [{ tags: ['', ' ', 'x'.repeat(300)] }, { purpose: null, tags: ['', ' ', 'x'.repeat(300)] }],
  [{ tags: ['é'.repeat(1300), LARGE, 'b'] }, { purpose: null, tags: ['é'.repeat(1300), 'b'] }],
  [['purpose', 'tags'], { purpose: null, tags: [] }],
  ['purpose', { purpose: null, tags: [] }],
  [42, { purpose: null, tags: [] }],
  [null, { purpose: null, tags: [] }],
  [undefined, { purpose: null, tags: [] }],
];

const CAPABILITIES: [unknown, string[]][] = [
  [
    ['search', 3, 'plan', ['x'], null],
    ['search', 'plan'],
  ],
  [{ search: true, plan: false, code: true, write: 'true', read: 1 }, ['code', 'search']],
  ['search', []],
  [null, []],
  [7, []],
];

const MEMORIES: [string, number, string | null, number | null][] = [
  ['FACT', -3, 'fact', 0],
  ['Knowledge', 7, 'fact', 1],
  ['preference', 0.25, 'preference', 0.25],
  ['SETTING', Infinity, 'preference', 1],
  ['interaction', -Infinity, 'interaction', 0],
  ['Conversation', NaN, 'interaction', null],
  ['episode', 1e-300, null, 1e-300],
];

const ODD_IDS = [
  `it's`,
  `"quoted"`,
  '🙂',
  '\\',
  '%_$1',
  ' ',
  'ÿ',
  'line\nand tab\t',
  '𝔘🙂'.repeat(256),
  // 2 KB that do not compress, as uuids run together do not
  Array.from({ length: 32 }, (_, n) => sha256Hex(`${n}`)).join(''),
];

let db: Fixture;

beforeAll(async () => {
  db = await createFixture();
  for (const [index, [context]] of CONTEXTS.entries()) {
    await db.sql(
      `INSERT INTO "AgentSession" ("id", "sessionId", "agentId", "status", "context", "updatedAt")
       VALUES ($1, $1, 'an agent that is gone', 'ended', $2::jsonb, now())`,
      [`context-${index}`, context === undefined ? null : JSON.stringify(context)],
    );
  }
  for (const [index, [capabilities]] of CAPABILITIES.entries()) {
    await db.sql(
      `INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "createdAt", "updatedAt")
       VALUES ($1, 'u', 'n', $2::jsonb, '{"model": "m"}', '2024-01-01', '2024-01-02')`,
      [`agent-${index}`, JSON.stringify(capabilities)],
    );
  }
  for (const [index, [type, importance]] of MEMORIES.entries()) {
    await db.sql(
      `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "createdAt", "updatedAt")
       VALUES ($1, 'u', 'a', $2, '{}', $3, '2024-01-01', now())`,
      [`memory-${index}`, type, importance],
    );
  }
  for (const id of ODD_IDS) {
    await db.sql(
      `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt")
       VALUES ($1, 'u', 'a', 'fact', '{}', 1, now())`,
      [id],
    );
    await db.sql(
      `INSERT INTO "AgentSession" ("id", "sessionId", "agentId", "status", "context", "updatedAt")
       VALUES ($1, 'odd ' || $1, $1, 'ended', '{"purpose": "odd"}', now())`,
      [id],
    );
    await db.sql(
      `INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "updatedAt")
       VALUES ($1, 'u', 'n', '["odd"]', '{}', now())`,
      [id],
    );
  }
  const states = [
    ['s1', 'm', '2024-01-01'],
    ['s3', 'm', '2024-01-02'],
    ['s2', 'm', '2024-01-02'],
    ['s0', 'm', '2024-01-03'],
    ['alone', 'n', '2024-01-02'],
    ...ODD_IDS.map((id, index) => [id, 'odd', `2024-01-${10 + index}`]),
  ];
  for (const [id, module, createdAt] of states) {
    await db.sql(
      `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "createdAt", "updatedAt")
       VALUES ($1, $2, '{"b": 1.0, "a": [1e3]}', '1', $3, now())`,
      [id, module, createdAt],
    );
  }
  // Enhanced by hand, in part: none of this may be replaced.
  await db.sql(`
    INSERT INTO "AgentSession" ("id", "sessionId", "status", "context", "updatedAt", "sessionPurpose", "sessionTags", "sessionSource")
      VALUES ('half-1', 'half-1', 'ended', '{"purpose": "p", "tags": ["t"]}', now(), 'mine', NULL, NULL),
             ('half-2', 'half-2', 'ended', '{"purpose": "p", "tags": ["t"]}', now(), NULL, '{}', 'schedule');
    INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "updatedAt", "learningMode", "specializations", "totalSessions")
      VALUES ('half-1', 'u', 'n', '["x"]', '{}', now(), 'active', '{mine}', 5), ('half-2', 'u', 'n', '["x"]', '{}', now(), NULL, NULL, 0);
    INSERT INTO "AgentVersion" ("id", "agentId", "versionNumber", "changes", "isActive")
      VALUES (gen_random_uuid(), 'half-1', '2.0.0', '{}', true), (gen_random_uuid(), 'half-2', '1.0.0', '{"mine": true}', false);
    INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "updatedAt", "memoryType", "confidence", "lastAccessedAt", "accessCount")
      VALUES ('half', 'u', 'a', 'fact', '{}', 1, now(), 'user_preference', 0.5, '2020-01-01', 3);
    INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "createdAt", "updatedAt", "sourceType")
      VALUES ('half-2', 'u', 'a', 'fact', '{}', 1, '2024-01-01', now(), 'api');
    UPDATE "ModuleState" SET "stateHash" = 'mine' WHERE "id" = 'alone'`);

  await db.work();
  await db.start();
  const runs = await db.finished();
  expect(runs.map(({ status }) => status)).toEqual(Array(4).fill('completed'));
});
afterAll(() => db.drop());

it.each(
  CONTEXTS.map(([context, expected], index) => [JSON.stringify(context), index, expected] as const),
)('a session with the context %s', async (_, index, { purpose, tags }) => {
  expect(
    await db.sql(
      `SELECT "sessionPurpose", "sessionTags", "sessionSource" FROM "AgentSession" WHERE "id" = $1`,
      [`context-${index}`],
    ),
  ).toEqual([{ sessionPurpose: purpose, sessionTags: tags, sessionSource: 'user' }]);
});

it.each(
  CAPABILITIES.map(
    ([capabilities, expected], index) => [JSON.stringify(capabilities), index, expected] as const,
  ),
)('an agent with the capabilities %s', async (_, index, expected) => {
  expect(
    await db.sql(
      `SELECT "specializations", "learningMode", "trainingStatus", "lastActiveAt" = "updatedAt" AS "active", "totalSessions",
           (SELECT json_agg(json_build_array("versionNumber", "isActive", "changes", "activatedAt" = a."createdAt")) FROM "AgentVersion" WHERE "agentId" = a."id") AS versions
         FROM "AI_Agent" a WHERE "id" = $1`,
      [`agent-${index}`],
    ),
  ).toEqual([
    {
      specializations: expected,
      learningMode: 'passive',
      trainingStatus: 'initial',
      active: true,
      totalSessions: 0,
      versions: [['1.0.0', true, { configuration: { model: 'm' } }, true]],
    },
  ]);
});

it.each(MEMORIES.map((row, index) => [...row, index] as const))(
  'a memory of type %s and importance %s',
  async (_type, _importance, memoryType, confidence, index) => {
    expect(
      await db.sql(
        `SELECT "memoryType", "confidence", "sourceType", "verificationStatus", "lastAccessedAt" = "createdAt" AS "accessed" FROM "InteractionMemory" WHERE "id" = $1`,
        [`memory-${index}`],
      ),
    ).toEqual([
      {
        memoryType,
        confidence,
        sourceType: 'user_input',
        verificationStatus: 'unverified',
        accessed: true,
      },
    ]);
  },
);

it('ids of any shape', async () => {
  const found = await db.sql(
    `SELECT "id" FROM "InteractionMemory" WHERE "id" = ANY ($1) AND "memoryType" = 'fact'`,
    [ODD_IDS],
  );
  expect(new Set(found.map(({ id }) => id))).toEqual(new Set(ODD_IDS));
  const chain = await db.sql(
    `SELECT "id", "previousStateId" FROM "ModuleState" WHERE "moduleId" = 'odd' ORDER BY "createdAt"`,
  );
  expect(chain).toEqual(
    ODD_IDS.map((id, index) => ({ id, previousStateId: ODD_IDS[index - 1] ?? null })),
  );
  const agents = await db.sql(
    `SELECT a."id" FROM "AI_Agent" a JOIN "AgentSession" s ON s."id" = a."id" JOIN "AgentVersion" v ON v."agentId" = a."id"
     WHERE a."id" = ANY ($1) AND a."totalSessions" = 1 AND a."lastActiveAt" = s."startedAt"
       AND a."specializations" = '{odd}' AND s."sessionPurpose" = 'odd' AND v."isActive"`,
    [ODD_IDS],
  );
  expect(new Set(agents.map(({ id }) => id))).toEqual(new Set(ODD_IDS));
});

it('a session whose agent is gone is filled in, and makes no agent', async () => {
  expect(
    await db.sql(
      `SELECT "sessionSource", (SELECT count(*)::int FROM "AI_Agent" WHERE "id" = "agentId") AS "agents"
       FROM "AgentSession" WHERE "agentId" = 'an agent that is gone' GROUP BY "sessionSource", "agentId"`,
    ),
  ).toEqual([{ sessionSource: 'user', agents: 0 }]);
});

it('the service derives what the backfill does', async () => {
  for (const [index, [context, { purpose, tags }]] of CONTEXTS.entries()) {
    const session = await createSession(db.prisma, {
      sessionId: `service-${index}`,
      context,
    });
    expect(session).toMatchObject({
      sessionPurpose: purpose,
      sessionTags: tags,
      sessionSource: 'user',
    });
  }
  await db.sql(`INSERT INTO "User" ("id") VALUES ('u')`);
  for (const [type, importance, memoryType, confidence] of MEMORIES) {
    if (!Number.isFinite(importance)) continue; // which the service does not take
    const memory = await createMemory(db.prisma, {
      userId: 'u',
      agentId: 'agent-0',
      type,
      content: {},
      importance,
    });
    expect(memory).toMatchObject({
      memoryType,
      confidence,
      sourceType: 'user_input',
      verificationStatus: 'unverified',
      lastAccessedAt: null,
    });
  }
});

it('two states of a module with the same time are in the order of their ids', async () => {
  const hash = sha256Hex(canonicalJson({ b: 1, a: [1000] }));
  expect(
    await db.sql(
      `SELECT "id", "previousStateId", "stateHash", "stateType" FROM "ModuleState" WHERE "moduleId" IN ('m', 'n') ORDER BY "moduleId", "createdAt", "id"`,
    ),
  ).toEqual([
    { id: 's1', previousStateId: null, stateHash: hash, stateType: 'module_state' },
    { id: 's2', previousStateId: 's1', stateHash: hash, stateType: 'module_state' },
    { id: 's3', previousStateId: 's2', stateHash: hash, stateType: 'module_state' },
    { id: 's0', previousStateId: 's3', stateHash: hash, stateType: 'module_state' },
    { id: 'alone', previousStateId: null, stateHash: 'mine', stateType: 'module_state' },
  ]);
});

it('what was enhanced by hand stays, and the rest of the row is filled in', async () => {
  expect(
    await db.sql(
      `SELECT "sessionPurpose", "sessionTags", "sessionSource" FROM "AgentSession" WHERE "id" LIKE 'half%' ORDER BY "id"`,
    ),
  ).toEqual([
    { sessionPurpose: 'mine', sessionTags: ['t'], sessionSource: 'user' },
    { sessionPurpose: 'p', sessionTags: [], sessionSource: 'schedule' },
  ]);
  expect(
    await db.sql(
      `SELECT "learningMode", "specializations", (SELECT json_agg(json_build_array("versionNumber", "isActive", "changes") ORDER BY "versionNumber") FROM "AgentVersion" WHERE "agentId" = a."id") AS versions FROM "AI_Agent" a WHERE "id" LIKE 'half%' ORDER BY "id"`,
    ),
  ).toEqual([
    {
      learningMode: 'active',
      specializations: ['mine'],
      versions: [
        ['1.0.0', false, { configuration: {} }],
        ['2.0.0', true, {}],
      ],
    },
    {
      learningMode: 'passive',
      specializations: ['x'],
      versions: [['1.0.0', false, { mine: true }]],
    },
  ]);
  expect(
    await db.sql(
      `SELECT "memoryType", "confidence", "accessCount", "lastAccessedAt"::date::text, "sourceType" FROM "InteractionMemory" WHERE "id" LIKE 'half%' ORDER BY "id"`,
    ),
  ).toEqual([
    {
      memoryType: 'user_preference',
      confidence: 0.5,
      accessCount: 3,
      lastAccessedAt: '2020-01-01',
      sourceType: 'user_input',
    },
    {
      memoryType: 'fact',
      confidence: 1,
      accessCount: 0,
      lastAccessedAt: '2024-01-01',
      sourceType: 'api',
    },
  ]);
});

it('a second run changes nothing', async () => {
  const before = await contents(db);
  await db.start();
  const runs = await db.finished();
  expect(runs.map(({ status, changed }) => [status, changed])).toEqual(
    TRANSFORMS.map(() => ['completed', 0]),
  );
  expect(await contents(db)).toEqual(before);
});

it(
  'hashes any state as upsertModuleState does, and tables may be empty',
  { timeout: 30_000 },
  async () => {
    const other = await createFixture();
    try {
      await other.work();
      await other.start();
      expect((await other.finished()).map(({ status }) => status)).toEqual(
        Array(4).fill('completed'),
      );
      const states = fc
        .sample(fc.jsonValue({ maxDepth: 4 }), { numRuns: 500, seed: 7 })
        .concat([
          1e21,
          1e-7,
          0.1 + 0.2,
          123456789012345680000,
          { '\u{1F600}': 1, '\uFFFD': 2, ab: 3, b: 4 },
          '\u007f\u2028\b',
        ])
        .map((state) => toStorable({ state }).value);
      for (const [index, state] of states.entries()) {
        await other.sql(
          `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "createdAt", "updatedAt") VALUES ($1, $1, $2::jsonb, '1', '2024-01-01', now())`,
          [`s${index}`, JSON.stringify(state)],
        );
      }
      await other.start();
      await other.finished();
      const stored = await other.sql(`SELECT "id", "stateHash" FROM "ModuleState"`);
      const hashes = new Map(stored.map(({ id, stateHash }) => [id, stateHash]));
      states.forEach((state, index) =>
        expect(hashes.get(`s${index}`)).toBe(sha256Hex(canonicalJson(state))),
      );
      const again = await upsertModuleState(other.prisma, {
        moduleId: 's3',
        state: states[3] as never,
        version: '1',
      });
      expect(again.id).toBe('s3');
    } finally {
      await other.drop();
    }
  },
);

it('states of one moment cost no more than states of distinct ones', async () => {
  const { derive } = STATES.columns.find(({ name }) => name === 'previousStateId')!;
  const seed = (moduleId: string, at: string) =>
    db.sql(
      `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "createdAt", "updatedAt")
       SELECT $1 || md5(n::text), $1, '{}', '1', ${at}, now() FROM generate_series(1, 4000) n`,
      [moduleId],
    );
  await seed('one moment', `'2024-01-01'`);
  await seed('distinct', `timestamp '2024-01-01' + n * interval '1 s'`);
  await db.sql('VACUUM ANALYZE "ModuleState"');
  /** Pages that it takes, whatever else the machine does. */
  const pages = async (sql: string) => {
    const [{ 'QUERY PLAN': plan }] = await db.sql(`EXPLAIN (ANALYZE, BUFFERS, FORMAT json) ${sql}`);
    const { Plan: top } = plan[0];
    return top['Shared Hit Blocks'] + top['Shared Read Blocks'];
  };
  const linking = (moduleId: string) =>
    pages(`SELECT ${derive} FROM "ModuleState" t WHERE "moduleId" = '${moduleId}'`);
  expect(await linking('one moment')).toBeLessThan(1.5 * (await linking('distinct')));
  // As upsertModuleState looks for the newest one.
  const newest = (moduleId: string) =>
    pages(`SELECT * FROM "ModuleState" s WHERE "moduleId" = '${moduleId}'
      AND NOT EXISTS (SELECT FROM "ModuleState" later WHERE later."previousStateId" = s."id")
      ORDER BY "createdAt" DESC, "id" DESC LIMIT 1`);
  expect(await newest('one moment')).toBeLessThan(20);
});
