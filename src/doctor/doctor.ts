import { Redis } from 'ioredis';

import type { Closer } from '../closer.ts';
import { Connection } from '../database/connection.ts';
import { addressOf, reasonOf } from '../outage.ts';
import { checkClocks } from './clocks.ts';
import {
  failed,
  ok,
  skipped,
  warning,
  type Finding,
  type Patient,
  type Verdict,
} from './finding.ts';
import {
  checkConfiguration,
  checkDataFolder,
  checkNode,
  checkSpoolFolder,
  checkStraySpools,
} from './machine.ts';
import * as postgres from './postgres.ts';
import * as redis from './redis.ts';

/** Milliseconds in which a server has to answer. */
const TIMEOUT_MS = 5000;

/** Every check by its name, in the order in which they are made and told. */
const CHECKS: Readonly<Record<string, (patient: Patient) => Verdict | Promise<Verdict>>> = {
  'Node.js': () => checkNode(),
  configuration: checkConfiguration,
  'data folder': checkDataFolder,
  'spool folder': checkSpoolFolder,
  'spool of other queues': checkStraySpools,
  PostgreSQL: connectPostgres,
  'PostgreSQL version': onPostgres(postgres.checkVersion),
  'PostgreSQL encoding': onPostgres(postgres.checkEncoding),
  'PostgreSQL takes writes': onPostgres(postgres.checkWritable),
  migrations: onPostgres(postgres.checkMigrations),
  'PostgreSQL durability': onPostgres(postgres.checkDurability),
  'PostgreSQL connections': onPostgres(postgres.checkConnections),
  'PostgreSQL time-outs': onPostgres(postgres.checkTimeouts),
  'PostgreSQL autovacuum': onPostgres(postgres.checkAutovacuum),
  'PostgreSQL monitoring': onPostgres(postgres.checkMonitoring),
  Redis: connectRedis,
  'Redis version': onRedis(redis.checkVersion),
  'Redis role': onRedis(redis.checkRole),
  'Redis eviction': onRedis(redis.checkEviction),
  'Redis persistence': onRedis(redis.checkPersistence),
  clocks: checkClocks,
};

/**
 * Makes every check, whatever comes of the others. Changes nothing.
 *
 * @param closer - closes the connections that are opened
 */
export async function examine(
  subject: Pick<Patient, 'config' | 'databaseUrl' | 'queue'>,
  closer: Closer,
): Promise<Finding[]> {
  const patient: Patient = { ...subject };
  closer.add('connections', async () => {
    patient.redis?.disconnect();
    await patient.postgres?.end();
  });
  const findings: Finding[] = [];
  for (const [check, look] of Object.entries(CHECKS)) {
    findings.push({ check, ...(await attempt(() => look(patient))) });
  }
  return findings;
}

async function attempt(look: () => Verdict | Promise<Verdict>): Promise<Verdict> {
  try {
    return await look();
  } catch (error) {
    return warning(
      `could not look: ${reasonOf(error)}`,
      'Look again when the server answers; or give the role the right to look (pg_monitor).',
    );
  }
}

function onPostgres(check: postgres.PostgresCheck) {
  return async (patient: Patient): Promise<Verdict> =>
    patient.postgres ? check(patient.postgres, patient) : skipped('PostgreSQL does not answer');
}

function onRedis(check: redis.RedisCheck) {
  return async ({ queue, redis: client }: Patient): Promise<Verdict> => {
    if (queue.kind !== 'redis') return skipped('the queues are on PostgreSQL');
    return client ? check(await redis.readInfo(client), client) : skipped('Redis does not answer');
  };
}

async function connectPostgres(patient: Patient): Promise<Verdict> {
  const client = new Connection({
    connectionString: patient.databaseUrl,
    connectionTimeoutMillis: TIMEOUT_MS,
    query_timeout: TIMEOUT_MS,
    application_name: 'annals doctor',
  });
  try {
    await client.connect();
    const since = performance.now();
    await client.query('SELECT 1');
    patient.postgres = client;
    return answers(patient.databaseUrl, performance.now() - since);
  } catch (error) {
    client.end().catch(() => {}); // not waited for: a server that hangs does not say goodbye
    return silent(patient.databaseUrl, error, 'DATABASE_URL');
  }
}

async function connectRedis(patient: Patient): Promise<Verdict> {
  const { queue } = patient;
  if (queue.kind !== 'redis') return skipped('the queues are on PostgreSQL');
  const client = new Redis(queue.url, {
    lazyConnect: true,
    connectTimeout: TIMEOUT_MS,
    commandTimeout: TIMEOUT_MS,
    retryStrategy: () => null,
  });
  let reason: unknown;
  client.on('error', (error) => (reason = error)); // says more than the rejection does
  try {
    await client.connect();
    const since = performance.now();
    await client.ping();
    patient.redis = client;
    return answers(queue.url, performance.now() - since);
  } catch (error) {
    client.disconnect();
    return silent(queue.url, reason ?? error, 'REDIS_URL');
  }
}

const answers = (url: string, ms: number) => ok(`${addressOf(url)} answers in ${ms.toFixed(1)} ms`);

const silent = (url: string, error: unknown, variable: string) =>
  failed(
    `${addressOf(url)}: ${reasonOf(error)}`,
    `Is it running, can this machine reach it, and is ${variable} right?`,
  );
