import { execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { Redis } from 'ioredis';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { loadConfig } from '../src/config.ts';
import { EmbeddedServerError } from '../src/errors.ts';
import { queuePrefix } from '../src/embedded/choice.ts';
import { embeddedPostgresBinaries, postgresBinaries } from '../src/embedded/binaries.ts';
import { initCluster } from '../src/embedded/cluster.ts';
import { openServers, type Servers } from '../src/embedded/index.ts';
import { type Lease, type LeaseRequest, takeLease } from '../src/embedded/lease.ts';
import { isAlive } from '../src/embedded/orphan.ts';
import { startPostgres, stopPostgres } from '../src/embedded/postgres.ts';
import { freePort } from '../src/embedded/process.ts';
import { claimSocket, socketFolder } from '../src/embedded/socket.ts';
import { describeRedis } from './support/database.ts';
import { removeFolder } from './support/files.ts';
import { forgetPid, killAtExit } from './support/pids.ts';
import { run, spawnTsx } from './support/process.ts';
import { onPath } from './support/programs.ts';

const isRoot = process.getuid?.() === 0;
/** The first folder on the way to where we are which others may not enter. */
const closedAbove = foldersTo(process.cwd()).find((path) => (statSync(path).mode & 0o001) === 0);
const redisServer = onPath('redis-server') ?? null;

let folder: string;
let dataDir: string;
let held: (Lease | Servers)[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'annals-test-'));
  chmodSync(folder, 0o711);
  dataDir = join(folder, 'data');
});

afterEach(async () => {
  const pids = startedPids();
  for (const pid of pids) killAtExit(pid);
  await Promise.all(held.map((lease) => lease.close()));
  held = [];
  await gone(...pids); // nothing is left running, whatever a test did
  for (const pid of pids) forgetPid(pid);
  if (existsSync(dataDir)) {
    // A long path has its socket elsewhere.
    removeFolder(socketFolder(realpathSync(dataDir)));
  }
  removeFolder(folder);
});

/** A lease of a PostgreSQL alone whose servers stop at once after it, unless `request` says otherwise. */
async function lease(request: Partial<LeaseRequest> = {}): Promise<Lease> {
  const taken = await takeLease({ dataDir, postgres: true, redis: null, graceMs: 100, ...request });
  held.push(taken);
  return taken;
}

/** Every supervisor and server of this test, as their log tells. */
function startedPids(): number[] {
  let log: string;
  try {
    log = readFileSync(join(dataDir, 'supervisor.log'), 'utf8');
  } catch {
    return []; // the test started none
  }
  const pids = Array.from(log.matchAll(/Z \[(\d+)\]|\(pid (\d+)\)/g), ([, own, server]) =>
    Number(own ?? server),
  );
  return [...new Set(pids)];
}

async function open(env: NodeJS.ProcessEnv = {}): Promise<Servers> {
  const servers = await openServers(loadConfig({ ANNALS_DATA_DIR: dataDir, ...env }), undefined, {
    graceMs: 100,
  });
  held.push(servers);
  return servers;
}

async function gone(...pids: (number | null)[]): Promise<void> {
  const left = () => pids.filter((pid) => pid !== null && isAlive(pid));
  for (const deadline = Date.now() + 30_000; left().length > 0; await sleep(20)) {
    if (Date.now() > deadline) throw new Error(`still running: ${left().join(', ')}`);
  }
}

async function sql(url: string | null, text: string): Promise<pg.QueryResultRow[]> {
  const client = new pg.Client({ connectionString: url as string, connectionTimeoutMillis: 5000 });
  client.on('error', () => {});
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

/** Until it succeeds, within 30 seconds. */
async function eventually<T>(attempt: () => Promise<T>): Promise<T> {
  for (const deadline = Date.now() + 30_000; ; await sleep(50)) {
    try {
      return await attempt();
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
  }
}

/** The message of the error that taking a lease ends with, which must not take long. */
async function faultOf(request: Partial<LeaseRequest> = {}): Promise<string> {
  const begun = Date.now();
  const error: unknown = await lease(request).catch((error: unknown) => error);
  expect(error).toBeInstanceOf(EmbeddedServerError);
  expect(Date.now() - begun).toBeLessThan(30_000);
  return (error as Error).message;
}

function holder(env: Record<string, string | undefined>) {
  const child = spawnTsx('test/support/leaseHolder.ts', [], {
    DATABASE_URL: undefined,
    REDIS_URL: undefined,
    ANNALS_DATA_DIR: dataDir,
    ...env,
  });
  const ready = new Promise<Pick<Servers, 'databaseUrl' | 'queue' | 'explanation'>>(
    (resolve, reject) => {
      let stderr = '';
      child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
      child.stdout.once('data', (data: Buffer) => resolve(JSON.parse(data.toString())));
      child.once('exit', () => reject(new Error(stderr)));
    },
  );
  return { child, ready };
}

describe('leases', () => {
  test('the second start finds the data of the first', async () => {
    const first = await lease();
    await sql(first.databaseUrl, 'CREATE TABLE kept AS SELECT 7 AS n');
    await first.close();
    await gone(...Object.values(first.pids));

    const second = await lease();
    expect(second.pids.postgres).not.toBe(first.pids.postgres);
    expect(await sql(second.databaseUrl, 'SELECT n FROM kept')).toEqual([{ n: 7 }]);
  });

  test('many that start at once share one supervisor and one server', async () => {
    const leases = await Promise.all(Array.from({ length: 5 }, () => lease()));
    expect(new Set(leases.map(({ pids }) => JSON.stringify(pids))).size).toBe(1);
    await Promise.all(leases.slice(1).map((each) => each.close()));
    await sleep(500);
    expect(await sql(leases[0]?.databaseUrl ?? null, 'SELECT 1 AS n')).toEqual([{ n: 1 }]);
  });

  test('of many candidates one becomes the supervisor, also after one that died', async () => {
    for (const round of [1, 2, 3]) {
      const candidates = Array.from({ length: 8 }, () => createServer());
      const won = await Promise.all(candidates.map((server) => claimSocket(folder, server)));
      expect(won.filter(Boolean), `round ${round}`).toHaveLength(1);
      // What remains of the winner is a socket file with nobody behind it.
      candidates[won.indexOf(true)]?.close();
    }
  });

  test('PostgreSQL is durable, in UTC, and listens on the loopback alone', async () => {
    const { databaseUrl } = await lease();
    const settings = await sql(
      databaseUrl,
      `SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commit,
      current_setting('timezone') AS zone, current_setting('listen_addresses') AS listens, current_setting('password_encryption') AS auth`,
    );
    expect(settings).toEqual([
      { fsync: 'on', commit: 'on', zone: 'UTC', listens: '127.0.0.1', auth: 'scram-sha-256' },
    ]);
    const wrong = (databaseUrl as string).replace(/:[0-9a-f]+@/, ':wrong@');
    await expect(sql(wrong, 'SELECT 1')).rejects.toThrow(/password authentication failed/);
  });

  test('a long path is no obstacle', async () => {
    dataDir = join(folder, 'long'.repeat(30));
    const [one, two] = await Promise.all([lease(), lease()]);
    expect(one.pids).toEqual(two.pids);
  });

  test('the next start takes another port when the last one is taken', async () => {
    const first = await lease();
    const port = Number(new URL(first.databaseUrl as string).port);
    await first.close();
    await gone(...Object.values(first.pids));
    const squatter = createServer().listen(port, '127.0.0.1');
    try {
      const second = await lease();
      expect(Number(new URL(second.databaseUrl as string).port)).not.toBe(port);
    } finally {
      squatter.close();
    }
  });
});

describe('kill -9', () => {
  test('of the last holder: all stops', async () => {
    const { child, ready } = holder({});
    await ready;
    const looked = await lease({ redis: redisServer });
    await looked.close();
    child.kill('SIGKILL');
    await gone(...Object.values(looked.pids));
  });

  test('of PostgreSQL while a query computes: it is back on the same port', async () => {
    const { databaseUrl, pids } = await lease();
    await sql(databaseUrl, 'CREATE TABLE kept AS SELECT 7 AS n');
    const busy = sql(
      databaseUrl,
      'SELECT count(*) FROM pg_class a, pg_class b, pg_class c, pg_class d',
    );
    busy.catch(() => {}); // it is cut off
    await eventually(async () => {
      const active = await sql(
        databaseUrl,
        "SELECT FROM pg_stat_activity WHERE query LIKE '%pg_class d' AND state = 'active'",
      );
      expect(active.length).toBe(1);
    });
    process.kill(pids.postgres as number, 'SIGKILL');
    await gone(pids.postgres);
    expect(await eventually(() => sql(databaseUrl, 'SELECT n FROM kept'))).toEqual([{ n: 7 }]);
  });

  test('of the supervisor: the next start stops what it left behind, and finds the data', async () => {
    const first = await lease({ redis: redisServer });
    await sql(first.databaseUrl, 'CREATE TABLE kept AS SELECT 7 AS n');
    process.kill(first.pids.supervisor, 'SIGKILL');
    await first.lost;
    expect(isAlive(first.pids.postgres as number)).toBe(true);

    const second = await lease({ redis: redisServer });
    await gone(...Object.values(first.pids));
    expect(second.databaseUrl).toBe(first.databaseUrl);
    expect(second.redisUrl).toBe(first.redisUrl);
    expect(await sql(second.databaseUrl, 'SELECT n FROM kept')).toEqual([{ n: 7 }]);
  });

  test('of the supervisor: a process that uses the servers goes on with them', async () => {
    const servers = await open();
    let lost = false;
    servers.onLost(() => (lost = true));
    const looked = await lease();
    await looked.close();
    process.kill(looked.pids.supervisor, 'SIGKILL');
    await gone(...Object.values(looked.pids));
    expect(await eventually(() => sql(servers.databaseUrl, 'SELECT 1 AS n'))).toEqual([{ n: 1 }]);
    const { pids: now } = await lease();
    expect(now.supervisor).not.toBe(looked.pids.supervisor);
    expect(lost).toBe(false);
  });

  test('of everything while the cluster was being made: the next start makes it', async () => {
    mkdirSync(join(dataDir, 'postgres.init-0badf00d/cluster'), { recursive: true });
    chmodSync(dataDir, 0o711);
    const { databaseUrl } = await lease();
    expect(await sql(databaseUrl, 'SELECT 1 AS n')).toEqual([{ n: 1 }]);
    expect(readdirSync(dataDir).filter((name) => name.includes('.init-'))).toEqual([]);
  });

  test("of the machine: a pid file whose number is another program's by now is no obstacle", async () => {
    const first = await lease();
    await first.close();
    await gone(...Object.values(first.pids));
    const { uid, gid } = statSync(join(dataDir, 'postgres'));
    const other = spawn('sleep', ['60'], { uid, gid }); // PostgreSQL heeds its own user's processes
    try {
      writeFileSync(
        join(dataDir, 'postgres/postmaster.pid'),
        `${other.pid}\n${dataDir}/postgres\n`,
      );
      const { databaseUrl } = await lease();
      expect(await sql(databaseUrl, 'SELECT 1 AS n')).toEqual([{ n: 1 }]);
      expect(other.exitCode ?? other.signalCode).toBeNull();
    } finally {
      other.kill();
    }
  });
});

describe('the queues of a private Redis', () => {
  const prefixFor = (url?: string) =>
    queuePrefix(loadConfig(url === undefined ? {} : { DATABASE_URL: url }), 'private redis');

  test("are each database's own, so that no worker of another takes its jobs", () => {
    const one = prefixFor('postgresql://user:secret@host/one');
    expect(prefixFor()).toBe('annals');
    expect(one).toMatch(/^annals_[0-9a-f]{8}$/);
    expect(prefixFor('postgresql://other@host/one?sslmode=require')).toBe(one);
    expect(prefixFor('postgresql://user:secret@host/two')).not.toBe(one);
  });
});

describe('the choice', () => {
  const without = (program: string) =>
    (process.env['PATH'] ?? '')
      .split(':')
      .filter((path) => !readdirSafely(path).includes(program))
      .join(':');
  const readdirSafely = (path: string) => {
    try {
      return readdirSync(path);
    } catch {
      return [];
    }
  };

  async function withPath<T>(path: string, work: () => Promise<T>): Promise<T> {
    const before = process.env['PATH'];
    process.env['PATH'] = path;
    try {
      return await work();
    } finally {
      process.env['PATH'] = before;
    }
  }

  test('what is configured is taken as given, and nothing is started', async () => {
    const [DATABASE_URL, REDIS_URL] = ['postgresql://given/db', 'redis://given'];
    const servers = await openServers(
      loadConfig({ ANNALS_DATA_DIR: dataDir, DATABASE_URL, REDIS_URL }),
    );
    expect(servers).toMatchObject({
      databaseUrl: DATABASE_URL,
      queue: { kind: 'redis', url: REDIS_URL },
    });
    expect(servers.explanation).toBe(
      'PostgreSQL: as DATABASE_URL says; queues: Redis, as REDIS_URL says',
    );
    await servers.close();
    expect(readdirSync(folder)).toEqual([]);
  });

  test('without redis-server the queues are on PostgreSQL, and stay there once it is installed', async () => {
    const chosen = await withPath(without('redis-server'), () => open());
    expect(chosen.queue).toEqual({
      kind: 'postgres',
      url: chosen.databaseUrl,
      prefix: 'annals',
    });
    expect(chosen.explanation).toMatch(
      /queues: on PostgreSQL \(REDIS_URL is not set, and redis-server is not on the PATH\)$/,
    );
    expect((await open()).queue.kind).toBe('postgres');
  });

  test('ANNALS_QUEUE_BACKEND=redis without any Redis is refused', async () => {
    const refused = withPath(without('redis-server'), () =>
      open({ ANNALS_QUEUE_BACKEND: 'redis' }),
    );
    await expect(refused).rejects.toThrow(
      /redis-server is not on the PATH\. Install redis-server, set REDIS_URL/,
    );
  });

  test("Prisma's command line is given the same PostgreSQL", async () => {
    const servers = await open({ ANNALS_QUEUE_BACKEND: 'postgres' });
    const script = `import { databaseUrlForThisProcess } from './src/embedded/index.ts';
      console.log(await databaseUrlForThisProcess());`;
    const ask = (DATABASE_URL?: string) =>
      run(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
        env: { DATABASE_URL, ANNALS_DATA_DIR: dataDir },
      });
    // That the process ends shows that the lease does not keep it.
    expect(await ask()).toMatchObject({ code: 0, stdout: `${servers.databaseUrl}\n` });
    expect(await ask('postgresql://given/db')).toMatchObject({
      code: 0,
      stdout: 'postgresql://given/db\n',
    });
  });

  describeRedis('with redis-server', () => {
    test('a private Redis, whose jobs outlive it, is refused to go missing', async () => {
      const first = await open({ DATABASE_URL: 'postgresql://given/db' });
      expect(first.explanation).toMatch(
        /^PostgreSQL: as DATABASE_URL says; queues: private redis-server \d+\.\d+\.\d+ \(REDIS_URL is not set\)/,
      );
      const looked = await lease({ postgres: false, redis: redisServer });
      expect(first.queue).toMatchObject({ kind: 'redis', url: looked.redisUrl });
      expect(looked.pids.postgres).toBeNull();
      const redis = new Redis(first.queue.url);
      await redis.set('kept', '7');
      expect(await redis.config('GET', 'appendonly')).toEqual(['appendonly', 'yes']);
      redis.disconnect();
      await Promise.all([first.close(), looked.close()]);
      await gone(...Object.values(looked.pids));

      const second = await open({ DATABASE_URL: 'postgresql://given/db' });
      const again = new Redis(second.queue.url);
      expect(await again.get('kept')).toBe('7');
      again.disconnect();
      const missing = withPath(without('redis-server'), () => open());
      await expect(missing).rejects.toThrow(
        /are in a private Redis.*ANNALS_QUEUE_BACKEND=postgres/,
      );
    });
  });
});

describe('a clear and early error', () => {
  test('for a data folder that cannot be', async () => {
    writeFileSync(dataDir, 'a file');
    dataDir = join(dataDir, 'below');
    expect(await faultOf()).toMatch(
      /cannot keep data in .*below: ENOTDIR.*Set ANNALS_DATA_DIR to a folder/,
    );
  });

  // The other user runs our program, and so has to be able to enter the project's folder.
  test.runIf(isRoot && !closedAbove)('for a data folder of another user', async () => {
    mkdirSync(dataDir, { mode: 0o700 });
    const { stderr, code } = await run(
      'setpriv',
      [
        '--reuid=65534',
        '--regid=65534',
        '--clear-groups',
        process.execPath,
        '--import',
        'tsx',
        'test/support/leaseHolder.ts',
      ],
      {
        env: { ANNALS_DATA_DIR: dataDir, DATABASE_URL: undefined, REDIS_URL: undefined },
      },
    );
    expect(code).toBe(1);
    expect(stderr).toMatch(/EmbeddedServerError: .*EACCES.*Set ANNALS_DATA_DIR/);
  });

  test('for a folder with something else in it', async () => {
    mkdirSync(join(dataDir, 'postgres/holiday'), { recursive: true });
    expect(await faultOf()).toMatch(/is not empty and holds no PostgreSQL cluster\. Move it away/);
  });

  test('for a cluster of another version', async () => {
    mkdirSync(join(dataDir, 'postgres'), { recursive: true });
    writeFileSync(join(dataDir, 'postgres/PG_VERSION'), '9\n');
    writeFileSync(join(dataDir, 'password'), 'secret');
    expect(await faultOf()).toMatch(
      /holds data of PostgreSQL 9, and the embedded PostgreSQL is 18\. Set ANNALS_DATA_DIR/,
    );
  });

  test("for a damaged cluster, quoting the server's log", async () => {
    const first = await lease();
    await first.close();
    await gone(...Object.values(first.pids));
    rmSync(join(dataDir, 'postgres/global/pg_control'));
    expect(await faultOf()).toMatch(/PostgreSQL stopped while starting.*pg_control/s);
  });

  test('for a lost password', async () => {
    const first = await lease();
    await first.close();
    await gone(...Object.values(first.pids));
    rmSync(join(dataDir, 'password'));
    expect(await faultOf()).toMatch(/password is gone.*Put it back/s);
  });

  test('for a full disk', async ({ skip }) => {
    mkdirSync(dataDir);
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m,mode=711', 'tmpfs', dataDir], {
        stdio: 'ignore',
      });
    } catch {
      skip('a small file system cannot be mounted here');
    }
    try {
      expect(await faultOf()).toMatch(/No space left on device/);
      await gone(...startedPids());
    } finally {
      execFileSync('umount', [dataDir]);
    }
  });
});

describe.runIf(isRoot && process.platform === 'linux')(
  'root, in folders that are closed to others',
  () => {
    let closed: string;
    beforeEach(() => {
      closed = join(folder, 'closed');
      mkdirSync(closed, { mode: 0o700 });
    });

    test('keeps data, and runs PostgreSQL as somebody else', async () => {
      dataDir = join(closed, 'data');
      const { databaseUrl, pids } = await lease();
      expect(await sql(databaseUrl, 'SELECT 1 AS n')).toEqual([{ n: 1 }]);
      expect(readFileSync(`/proc/${pids.postgres}/status`, 'utf8')).not.toMatch(/^Uid:\s+0/m);
      const [, found] = /since (.+) is closed to that user/.exec(
        readFileSync(join(dataDir, 'postgres.log'), 'utf8'),
      )!;
      expect([closed, closedAbove]).toContain(found); // the programs may be in the project's folder
    });

    test('keeps the data of somebody else, however long the path', async () => {
      dataDir = join(folder, 'long'.repeat(20));
      mkdirSync(dataDir, { mode: 0o711 });
      chownSync(dataDir, 65534, 65534);
      const { databaseUrl } = await lease();
      expect(await sql(databaseUrl, 'SELECT 1 AS n')).toEqual([{ n: 1 }]);
      expect(statSync(socketFolder(realpathSync(dataDir))).uid).toBe(65534);
    });

    test('may have the programs there as well', async () => {
      const native = join(dirname(embeddedPostgresBinaries().postgres), '..');
      cpSync(native, join(closed, 'native'), { recursive: true, verbatimSymlinks: true });
      const binaries = postgresBinaries(join(closed, 'native/bin'));
      const cluster = join(closed, 'cluster');
      await initCluster(binaries, cluster, 'secret');
      const logFile = join(closed, 'log');
      const server = await startPostgres({
        binaries,
        dataDir: cluster,
        logFile,
        password: 'secret',
        port: await freePort(),
      });
      await stopPostgres(server);
    });
  },
);

function foldersTo(path: string): string[] {
  const parent = dirname(path);
  return parent === path ? [path] : [...foldersTo(parent), path];
}
