import { spawn } from 'node:child_process';
import { constants } from 'node:os';

import { loadConfig } from '../../config.ts';
import { openServers } from '../../embedded/index.ts';
import { UsageError } from '../../errors.ts';

/** Runs a program that finds the servers in its environment; the exit code is the program's. */
export async function exec(name: string, args: readonly string[]): Promise<void> {
  const servers = await openServers(loadConfig(), console.error);
  const { databaseUrl, queue } = servers;
  // What some put between a command of ours and one of theirs.
  const own = args[0] === '--' ? args.slice(1) : args;
  const child = spawn(name, own, {
    stdio: 'inherit',
    env: {
      ...process.env,
      ...libpqVariables(databaseUrl),
      DATABASE_URL: databaseUrl,
      ...(queue.kind === 'redis' && { REDIS_URL: queue.url }),
    },
  });
  // A terminal sends Ctrl-C to the program, too, to which it may mean something else than an end.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  try {
    process.exitCode = await new Promise<number>((resolve, reject) => {
      child.once('error', (cause: NodeJS.ErrnoException) => {
        const reason = cause.code === 'ENOENT' ? 'is not on the PATH' : cause.message;
        reject(new UsageError(`${name}: ${reason}`, { cause }));
      });
      child.once('close', (code, signal) =>
        resolve(code ?? 128 + (signal ? constants.signals[signal] : 0)),
      );
    });
  } finally {
    await servers.close();
  }
}

/** The address as psql and its like take it from the environment. */
function libpqVariables(databaseUrl: string): Record<string, string> {
  const { searchParams, hostname, port, username, password, pathname } = new URL(databaseUrl);
  const found = {
    PGHOST: searchParams.get('host') ?? hostname.replace(/^\[(.*)\]$/, '$1'),
    PGPORT: port,
    PGUSER: decodeURIComponent(username),
    PGPASSWORD: decodeURIComponent(password),
    PGDATABASE: decodeURIComponent(pathname.slice(1)),
    PGSSLMODE: searchParams.get('sslmode') ?? '',
  };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== ''));
}
