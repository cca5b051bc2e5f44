import pg from 'pg';

/** Shaped like Prisma's default ids, which grow with time: c, milliseconds, a counter, random digits. */
const cuid = (salt: string) =>
  `'c' || to_hex(1704067200000 + n::bigint * 1000) || lpad(to_hex(n % 65536), 4, '0') || left(md5('${salt}' || n), 12)`;

/** Sorts in no order that has to do with time, as a uuid does. */
const random = (salt: string) => `md5('${salt}' || n)`;

/** The id of the n-th row, as SQL in terms of `n`. Memories have random ids. */
export const IDS = {
  AgentSession: cuid('s'),
  ModuleState: cuid('m'),
  InteractionMemory: random('memory'),
} as const;

/** The same where every id is a random one. */
export const RANDOM_IDS: Readonly<Record<keyof typeof IDS, string>> = {
  AgentSession: random('session'),
  ModuleState: random('state'),
  InteractionMemory: IDS.InteractionMemory,
};

/** Plain rows: so many sessions, module states and memories, and one agent for a hundred of them. */
export async function seedPlainRows(
  databaseUrl: string,
  rows: number,
  ids: Readonly<Record<keyof typeof IDS, string>> = IDS,
): Promise<void> {
  await withClient(databaseUrl, async (client) => {
    const agents = Math.max(1, Math.floor(rows / 100));
    await client.query(`INSERT INTO "User" ("id") VALUES ('user')`);
    const statements = [
      `INSERT INTO "AI_Agent" ("id", "userId", "name", "capabilities", "configuration", "createdAt", "updatedAt")
       SELECT 'agent-' || n, 'user', 'Agent ' || n, '{"search": true, "plan": false}', '{"model": "m", "temperature": 0.2}', '2024-01-01', '2024-02-01'
       FROM generate_series(1, ${agents}) n`,
      `INSERT INTO "AgentSession" ("id", "sessionId", "userId", "agentId", "status", "context", "startedAt", "createdAt", "updatedAt")
       SELECT ${ids.AgentSession}, 'session-' || n, 'user', 'agent-' || 1 + n % ${agents}, 'ended',
         jsonb_build_object('purpose', 'purpose ' || n % 1000, 'tags', jsonb_build_array('a', n % 50, 'tag-' || n % 20), 'note', repeat('x', n % 200)),
         timestamp '2024-03-01' + n * interval '1 s', '2024-03-01', '2024-03-01'
       FROM generate_series(1, ${rows}) n`,
      `INSERT INTO "ModuleState" ("id", "moduleId", "state", "version", "createdAt", "updatedAt")
       SELECT ${ids.ModuleState}, 'module-' || n % ${agents}, jsonb_build_object('step', n, 'progress', n % 100 / 100.0, 'note', repeat('y', n % 200)), '1',
         timestamp '2024-01-01' + n * interval '1 s', '2024-01-01'
       FROM generate_series(1, ${rows}) n`,
      `INSERT INTO "InteractionMemory" ("id", "userId", "agentId", "type", "content", "importance", "createdAt", "updatedAt")
       SELECT ${ids.InteractionMemory}, 'user', 'agent-' || 1 + n % ${agents}, (ARRAY['fact', 'Preference', 'CONVERSATION', 'other'])[1 + n % 4],
         jsonb_build_object('text', repeat('z', n % 200)), n % 14 / 10.0 - 0.1, '2024-01-01', '2024-01-01'
       FROM generate_series(1, ${rows}) n`,
    ];
    for (const statement of statements) await client.query(statement);
    await client.query('VACUUM ANALYZE');
  });
}

/** Makes a copy of a database, and returns its URL. Nobody may be connected to the original. */
export async function copyDatabase(databaseUrl: string, name: string): Promise<string> {
  const original = new URL(databaseUrl).pathname.slice(1);
  const maintenance = Object.assign(new URL(databaseUrl), { pathname: 'postgres' }).href;
  await withClient(maintenance, (client) =>
    client.query(`CREATE DATABASE "${name}" TEMPLATE "${original}" STRATEGY FILE_COPY`),
  );
  return Object.assign(new URL(databaseUrl), { pathname: name }).href;
}

export async function withClient<T>(
  databaseUrl: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
