import { existsSync } from 'node:fs';

import { CronExpressionParser } from 'cron-parser';
import { z } from 'zod';

import { ConfigError } from './errors.ts';
import { nearest } from './nearest.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

const integer = (min: number, max: number) => {
  const error = `takes a whole number from ${min} to ${max}`;
  return z.coerce.number({ error }).int({ error }).min(min, { error }).max(max, { error });
};

/** A connection URL of one of `schemes`; the value itself is never repeated in a fault. */
const url = (...schemes: string[]) =>
  z.string().refine((text) => URL.canParse(text) && schemes.includes(new URL(text).protocol), {
    error: `takes a URL beginning with ${schemes.map((scheme) => `${scheme}//`).join(' or ')}`,
  });

/**
 * Prisma's own `?schema=` is obeyed by its command line and by nothing else: tables would be made
 * in one schema and looked for in another.
 */
const databaseUrl = url('postgresql:', 'postgres:').refine(
  (text) => {
    const schema = URL.canParse(text) && new URL(text).searchParams.get('schema');
    return !schema || schema === 'public';
  },
  { error: 'takes no schema but public; remove ?schema= and use a database of its own' },
);

/** The value itself is never repeated in a fault. */
const credential = (min: number) =>
  z
    .string()
    .min(min, { error: `takes at least ${min} characters` })
    .optional();

/** When work is done again: a cron pattern as BullMQ's schedulers read it, or `off`. */
const schedule = z.string().refine((text) => text === 'off' || isCronPattern(text), {
  error: 'takes a cron pattern of 5 fields (6 with seconds), such as */5 * * * *, or off',
});

function isCronPattern(text: string): boolean {
  if (!/^\S+( \S+){4,5}$/.test(text)) return false;
  try {
    CronExpressionParser.parse(text, { tz: 'UTC' }).next(); // 30 February never comes
    return true;
  } catch {
    return false;
  }
}

interface Setting<T extends z.ZodType = z.ZodType> {
  schema: T;
  /** For people: what it is for, with its unit. */
  about: string;
  /** Never printed. */
  secret?: boolean;
}

const setting = <T extends z.ZodType>(schema: T, about: string, secret = false): Setting<T> => ({
  schema,
  about,
  secret,
});

/**
 * Every environment variable that Annals reads, and the only place that reads them. README's
 * configuration table is held equal to this table by a test.
 */
export const SETTINGS = {
  DATABASE_URL: setting(
    databaseUrl.optional(),
    'PostgreSQL 15 or later. Unset: an embedded PostgreSQL that keeps its data in `ANNALS_DATA_DIR`.',
    true,
  ),
  REDIS_URL: setting(
    url('redis:', 'rediss:').optional(),
    'Redis 6.2 or later, or Valkey. Unset: a private `redis-server` where that program is on the PATH, else queues on PostgreSQL.',
    true,
  ),
  ANNALS_QUEUE_BACKEND: setting(
    z.enum(['auto', 'redis', 'postgres']).default('auto'),
    'Where the queues live: `redis`, `postgres`, or `auto` (Redis if `REDIS_URL` is set or `redis-server` is on the PATH).',
  ),
  ANNALS_QUEUE_PREFIX: setting(
    z
      .string()
      .regex(/^[a-z][a-z0-9_]{0,39}$/, {
        error: 'takes 1 to 40 of a-z, 0-9 and _, beginning with a letter',
      })
      .default('annals'),
    'Namespace of the queues: the key prefix in Redis, the schema in PostgreSQL.',
  ),
  ANNALS_DATA_DIR: setting(
    z.string().min(1).default('.annals'),
    'Folder of the embedded servers, relative to the working directory.',
  ),
  ANNALS_LOG_LEVEL: setting(
    z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'),
    'Least severe level that is logged.',
  ),
  ANNALS_LOG_FORMAT: setting(
    z.enum(['auto', 'json', 'pretty']).default('auto'),
    '`auto` is `pretty` on a terminal and `json` elsewhere. Logs go to standard error.',
  ),
  ANNALS_DATABASE_POOL_SIZE: setting(
    integer(1, 200).default(10),
    'Connections to PostgreSQL that a process opens at most, besides those of PostgreSQL queues.',
  ),
  ANNALS_WORKER_CONCURRENCY: setting(
    integer(1, 1000).default(64),
    'Jobs of one queue that a worker holds at once at most, fewer where they are large; the events of these are written together.',
  ),
  ANNALS_BATCH_MAX_ROWS: setting(integer(1, 20_000).default(5000), 'Events in one write at most.'),
  ANNALS_JOB_LOCK_MS: setting(
    integer(1000, 600_000).default(15_000),
    'Milliseconds after which the jobs of a worker that died are given to another.',
  ),
  ANNALS_JOB_ATTEMPTS: setting(
    integer(1, 100).default(8),
    'Attempts that wait for an unknown reference (back-off 0.5 s, doubling) before the events become a dead letter.',
  ),
  ANNALS_SESSION_COUNTS_SCHEDULE: setting(
    schedule.default('*/5 * * * *'),
    "When the agents' session counts are checked and healed: a cron pattern in UTC, or `off`.",
  ),
  ANNALS_EXPIRY_SCHEDULE: setting(
    schedule.default('off'),
    'When module states and memories past their `expiresAt` are deleted: a cron pattern in UTC, or `off`.',
  ),
  ANNALS_DEAD_LETTERS_SCHEDULE: setting(
    schedule.default('17 * * * *'),
    'When the oldest dead letters are discarded and counted, beyond 100,000 jobs of a kind or 90 days: a cron pattern in UTC, or `off`.',
  ),
  ANNALS_SHUTDOWN_DEADLINE_MS: setting(
    integer(0, 600_000).default(25_000),
    'Milliseconds in which a process that was told to stop finishes what it holds.',
  ),
  ANNALS_BOARD_HOST: setting(
    z.string().min(1).default('127.0.0.1'),
    'Address that the board listens on. Any but loopback needs a password or a token.',
  ),
  ANNALS_BOARD_PORT: setting(
    integer(0, 65_535).default(7300),
    'Port that the board listens on; 0 is any that is free.',
  ),
  ANNALS_BOARD_USER: setting(
    z.string().min(1).default('annals'),
    'User of `ANNALS_BOARD_PASSWORD`.',
  ),
  ANNALS_BOARD_PASSWORD: setting(
    credential(8),
    'Password that a browser asks for (basic authentication), of at least 8 characters.',
    true,
  ),
  ANNALS_BOARD_TOKEN: setting(
    // A header ends at white space: no request could ever bring such a token.
    credential(16).refine((token) => !/\s/.test(token ?? ''), { error: 'takes no white space' }),
    'Bearer token for programs such as Prometheus, of at least 16 characters, none of them white space.',
    true,
  ),
  ANNALS_BOARD_READ_ONLY: setting(
    z
      .enum(['true', 'false'])
      .default('false')
      .transform((text) => text === 'true'),
    'Whether the board only shows (`true`) or also retries and removes jobs (`false`).',
  ),
  ANNALS_PACK_MAX_EVENTS: setting(integer(1, 10_000).default(4000), 'Events in one job at most.'),
  ANNALS_PACK_MAX_BYTES: setting(
    integer(KIB, 16 * MIB).default(MIB),
    'Bytes of JSON in one job at most; one larger event travels alone.',
  ),
  ANNALS_PACK_MAX_WAIT_MS: setting(
    integer(0, 50).default(10),
    'Milliseconds that an event waits for company at most before it is sent.',
  ),
  ANNALS_BUFFER_MAX_EVENTS: setting(
    integer(1, 10_000_000).default(100_000),
    'Events that a producer holds in memory at most.',
  ),
  ANNALS_BUFFER_MAX_BYTES: setting(
    integer(MIB, 16 * 1024 * MIB).default(64 * MIB),
    'Bytes of JSON that a producer holds in memory at most.',
  ),
  ANNALS_DURABILITY: setting(
    z.enum(['queue', 'sync']).default('queue'),
    'When an event is safe from `kill -9` of its process: `queue`: once the queue or the spool has it; `sync`: before `emit` returns, by way of the spool.',
  ),
  ANNALS_SPOOL_DIR: setting(
    z.string().min(1).default('.annals/spool'),
    'Folder, on a disk of this machine, of events that the queue has not taken yet, relative to the working directory.',
  ),
  ANNALS_SPOOL_MAX_BYTES: setting(
    integer(MIB, 1024 * 1024 * MIB).default(256 * MIB),
    'Bytes that the events of a producer take in the spool at most; twice that with what dead producers left.',
  ),
  ANNALS_SPOOL_AFTER_MS: setting(
    integer(10, 600_000).default(1000),
    'Milliseconds in which the queue has to take events before these go to the spool.',
  ),
  ANNALS_ON_FULL: setting(
    z.enum(['drop', 'throw']).default('drop'),
    'What becomes of a new event when memory and spool are full: `drop` it and count it, or `throw` from `emit`.',
  ),
  // OpenTelemetry's are the agent's before they are ours: no value of theirs is a fault.
  OTEL_EXPORTER_OTLP_ENDPOINT: setting(
    z.string().optional(),
    'OpenTelemetry receiver (OTLP over HTTP), such as `http://localhost:4318`, that producers and workers send traces to. Unset, or no such URL: no tracing.',
    true,
  ),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: setting(
    z.string().optional(),
    'The same for traces alone, with its path, such as `http://localhost:4318/v1/traces`; it wins.',
    true,
  ),
  OTEL_TRACES_EXPORTER: setting(
    z.string().default('otlp'),
    'How traces are sent; anything that does not name `otlp`, such as `none`, is not at all.',
  ),
  OTEL_TRACES_SAMPLER: setting(
    z.string().default('parentbased_always_on'),
    'Which traces are sent: `always_on`, `always_off` or `traceidratio`, or one of these after `parentbased_`.',
  ),
  OTEL_TRACES_SAMPLER_ARG: setting(
    z.string().default('1'),
    'The share of traces, 0 to 1, that `traceidratio` sends.',
  ),
  OTEL_SDK_DISABLED: setting(
    z
      .string()
      .default('false')
      .transform((text) => text.trim().toLowerCase() === 'true'),
    'Whether nothing is traced although a receiver is named (`true`, in any case).',
  ),
} as const;

type Settings = typeof SETTINGS;

/** Parsed configuration, keyed by the name of the variable. */
export type Config = Readonly<{ [K in keyof Settings]: z.output<Settings[K]['schema']> }>;

/**
 * What finds the servers, and what a producer reads: an agent must not fail for a fault of a setting
 * that is for workers or the board.
 */
const SERVER_SETTINGS = [
  'DATABASE_URL',
  'REDIS_URL',
  'ANNALS_QUEUE_BACKEND',
  'ANNALS_QUEUE_PREFIX',
  'ANNALS_DATA_DIR',
] as const satisfies (keyof Config)[];

export const PRODUCER_SETTINGS = [
  ...SERVER_SETTINGS,
  'ANNALS_PACK_MAX_EVENTS',
  'ANNALS_PACK_MAX_BYTES',
  'ANNALS_PACK_MAX_WAIT_MS',
  'ANNALS_BUFFER_MAX_EVENTS',
  'ANNALS_BUFFER_MAX_BYTES',
  'ANNALS_DURABILITY',
  'ANNALS_SPOOL_DIR',
  'ANNALS_SPOOL_MAX_BYTES',
  'ANNALS_SPOOL_AFTER_MS',
  'ANNALS_ON_FULL',
  'ANNALS_SHUTDOWN_DEADLINE_MS',
] as const satisfies (keyof Config)[];

export type ServerConfig = Pick<Config, (typeof SERVER_SETTINGS)[number]>;
export type ProducerConfig = Pick<Config, (typeof PRODUCER_SETTINGS)[number]>;

/**
 * Reads and checks the whole configuration; an empty variable counts as unset.
 *
 * @param env - default `process.env`, with a `.env` file of the working directory behind it (what
 *   the environment sets wins), as Prisma's commands read it
 * @throws {ConfigError} naming every faulty variable, what it got and what it takes
 *
 * @example const config = loadConfig();
 */
export function loadConfig(env: NodeJS.ProcessEnv = environment()): Config {
  return loadSettings(Object.keys(SETTINGS) as (keyof Settings)[], env);
}

/**
 * Reads and checks some settings, as `loadConfig` does all.
 *
 * @example const config = loadSettings(PRODUCER_SETTINGS);
 */
export function loadSettings<Name extends keyof Settings>(
  names: readonly Name[],
  env: NodeJS.ProcessEnv = environment(),
): Pick<Config, Name> {
  const values: Record<string, unknown> = {};
  const faults: string[] = [];
  for (const name of names) {
    const { schema, secret }: Setting = SETTINGS[name];
    const raw = env[name] === '' ? undefined : env[name];
    const parsed = schema.safeParse(raw);
    if (parsed.success) values[name] = parsed.data;
    else {
      const why = parsed.error.issues.map((issue) => issue.message).join('; ');
      faults.push(`${name}: got ${secret ? 'a value (hidden)' : JSON.stringify(raw)}; ${why}`);
    }
  }
  if (faults.length > 0)
    throw new ConfigError(`the configuration is wrong:\n  ${faults.join('\n  ')}`);
  return Object.freeze(values) as Pick<Config, Name>;
}

/**
 * Names in the environment that look like settings and are none, each with the setting that was
 * probably meant.
 *
 * @example unknownSettings({ ANNALS_LOGLEVEL: 'debug' }) // ['ANNALS_LOGLEVEL is no setting; did you mean ANNALS_LOG_LEVEL?']
 */
export function unknownSettings(env: NodeJS.ProcessEnv = process.env): string[] {
  const known = Object.keys(SETTINGS);
  return Object.keys(env)
    .filter((name) => /^ANNALS_(?!TEST_)/.test(name) && !known.includes(name))
    .map((name) => {
      const meant = nearest(name, known, MAX_TYPOS);
      return `${name} is no setting${meant === undefined ? '' : `; did you mean ${meant}?`}`;
    });
}

const MAX_TYPOS = 4;

function environment(): NodeJS.ProcessEnv {
  if (existsSync('.env')) process.loadEnvFile();
  return process.env;
}
