import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { loadConfig, loadSettings, PRODUCER_SETTINGS, unknownSettings } from '../src/config.ts';
import { ConfigError } from '../src/errors.ts';
import { removeFolder } from './support/files.ts';

function faultsOf(env: NodeJS.ProcessEnv): string {
  try {
    loadConfig(env);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).message;
  }
  throw new Error('the configuration was accepted');
}

describe('loadConfig', () => {
  test('needs nothing: every variable has a default or may be unset', () => {
    const config = loadConfig({});
    expect(config.DATABASE_URL).toBeUndefined();
    expect(config.REDIS_URL).toBeUndefined();
    expect(config).toMatchObject({
      ANNALS_QUEUE_BACKEND: 'auto',
      ANNALS_QUEUE_PREFIX: 'annals',
      ANNALS_DATA_DIR: '.annals',
    });
    expect(Object.isFrozen(config)).toBe(true);
  });

  test('reads numbers as numbers', () => {
    expect(loadConfig({ ANNALS_BATCH_MAX_ROWS: '250' }).ANNALS_BATCH_MAX_ROWS).toBe(250);
  });

  test('takes an empty variable as unset', () => {
    const empty = { DATABASE_URL: '', ANNALS_DATA_DIR: '', ANNALS_BATCH_MAX_ROWS: '' };
    expect(loadConfig(empty)).toEqual(loadConfig({}));
  });

  test('names every fault at once: the variable, what it got and what it takes', () => {
    const message = faultsOf({
      ANNALS_QUEUE_BACKEND: 'kafka',
      ANNALS_QUEUE_PREFIX: 'No Good',
      ANNALS_BATCH_MAX_ROWS: 'many',
      ANNALS_LOG_LEVEL: 'info',
    });
    expect(message).toMatch(/ANNALS_QUEUE_BACKEND: got "kafka"; .*"auto"\|"redis"\|"postgres"/);
    expect(message).toMatch(/ANNALS_QUEUE_PREFIX: got "No Good"; takes 1 to 40 of a-z/);
    expect(message).toMatch(/ANNALS_BATCH_MAX_ROWS: got "many"; takes a whole number/);
    expect(message).not.toMatch(/ANNALS_LOG_LEVEL/);
  });

  test('refuses numbers beyond their range', () => {
    expect(faultsOf({ ANNALS_WORKER_CONCURRENCY: '0' })).toMatch(
      /ANNALS_WORKER_CONCURRENCY: got "0"/,
    );
    expect(faultsOf({ ANNALS_WORKER_CONCURRENCY: '1.5' })).toMatch(/ANNALS_WORKER_CONCURRENCY/);
  });

  test('takes no schema of PostgreSQL but public', () => {
    const url = 'postgresql://me:hunter2@host/db?schema=';
    expect(faultsOf({ DATABASE_URL: `${url}mine` })).toMatch(
      /DATABASE_URL: .*no schema but public/,
    );
    expect(loadConfig({ DATABASE_URL: `${url}public` }).DATABASE_URL).toBe(`${url}public`);
  });

  test.each(['*/5 * * * *', '0 3 * * 1-5', '*/2 * * * * *', 'off'])('schedules %s', (pattern) => {
    const config = loadConfig({ ANNALS_SESSION_COUNTS_SCHEDULE: pattern });
    expect(config.ANNALS_SESSION_COUNTS_SCHEDULE).toBe(pattern);
  });

  test.each(['hourly', '61 * * * *', '* * *', '5', '0 0 30 2 *', '* * * * * * *'])(
    'does not schedule %s',
    (pattern) => {
      expect(faultsOf({ ANNALS_EXPIRY_SCHEDULE: pattern })).toMatch(
        /ANNALS_EXPIRY_SCHEDULE: got .*; takes a cron pattern of 5 fields/,
      );
    },
  );

  test.each([
    ['True', true],
    [' TRUE ', true],
    ['1', false],
    ['yes', false],
  ])('takes OTEL_SDK_DISABLED=%s for %s, as OpenTelemetry does', (value, isDisabled) => {
    expect(loadConfig({ OTEL_SDK_DISABLED: value }).OTEL_SDK_DISABLED).toBe(isDisabled);
  });

  test('finds no fault with an endpoint that is the agent’s own', () => {
    expect(() => loadConfig({ OTEL_EXPORTER_OTLP_ENDPOINT: 'localhost:4317' })).not.toThrow();
  });

  test('tells a producer of the faults of its own settings only', () => {
    const others = { ANNALS_BOARD_PORT: 'http', ANNALS_BOARD_TOKEN: 'x', ANNALS_JOB_LOCK_MS: '1' };
    expect(() => loadSettings(PRODUCER_SETTINGS, others)).not.toThrow();
    expect(() => loadConfig(others)).toThrow(/BOARD_PORT[^]*BOARD_TOKEN|BOARD_TOKEN/);
    const own = { ...others, ANNALS_ON_FULL: 'x', REDIS_URL: 'x' };
    expect(() => loadSettings(PRODUCER_SETTINGS, own)).toThrow(/REDIS_URL[^]*ANNALS_ON_FULL/);
  });

  test('never repeats a secret', () => {
    const message = faultsOf({ DATABASE_URL: 'mysql://me:hunter2@host/db', REDIS_URL: 'hunter3' });
    expect(message).toMatch(/DATABASE_URL: got a value \(hidden\); .*postgresql:\/\//);
    expect(message).toMatch(/REDIS_URL: got a value \(hidden\)/);
    expect(message).not.toMatch(/hunter/);
  });
});

test('a .env file stands behind the environment', () => {
  const before = { cwd: process.cwd(), env: { ...process.env } };
  const folder = mkdtempSync(join(tmpdir(), 'annals-env-'));
  writeFileSync(join(folder, '.env'), 'ANNALS_QUEUE_PREFIX=of_file\nANNALS_BATCH_MAX_ROWS=7\n');
  try {
    process.env['ANNALS_BATCH_MAX_ROWS'] = '8';
    process.chdir(folder);
    expect(loadConfig()).toMatchObject({
      ANNALS_QUEUE_PREFIX: 'of_file',
      ANNALS_BATCH_MAX_ROWS: 8,
    });
  } finally {
    process.chdir(before.cwd);
    process.env = before.env;
    removeFolder(folder);
  }
});

test('names that are no settings are told, with the setting that was meant', () => {
  const env = { ANNALS_LOGLEVEL: 'x', ANNALS_SOMETHING: 'x', ANNALS_LOG_FORMAT: 'json', PATH: '' };
  expect(unknownSettings(env)).toEqual([
    'ANNALS_LOGLEVEL is no setting; did you mean ANNALS_LOG_LEVEL?',
    'ANNALS_SOMETHING is no setting',
  ]);
});
