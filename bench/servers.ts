import { chmodSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { applyMigrations } from '../src/database/migrations.ts';
import { ownPostgres, ownRedis, type OwnServer } from '../test/support/ownServers.ts';
import type { TestServer } from '../test/support/serverControl.ts';
import { removeFolder } from '../test/support/files.ts';

/** Durable servers of a run's own. */
export interface Servers {
  /** For whatever the run's processes leave; removed by `close`. */
  folder: string;
  /** With every migration applied. */
  postgres: TestServer;
  redis: TestServer | undefined;
  close(): Promise<void>;
}

/**
 * Starts them on free ports, with the settings of the embedded ones.
 *
 * @throws {Error} if Redis is wanted and `redis-server` is not on the PATH
 */
export async function openServers(
  purpose: string,
  { withRedis }: { withRedis: boolean },
): Promise<Servers> {
  const folder = mkdtempSync(join(tmpdir(), `annals-${purpose}-`));
  chmodSync(folder, 0o711); // as root, PostgreSQL runs as another user, who must pass
  const pids = new Set<number>();
  const own: OwnServer = {
    parent: folder,
    onStart: ({ pid, exited }) => {
      pids.add(pid);
      void exited.then(() => pids.delete(pid));
    },
  };
  // The last resort, when the run ends without its `close`: nothing asynchronous works here.
  const atExit = () => {
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    removeFolder(folder);
  };
  process.once('exit', atExit);

  const postgres = await ownPostgres(own);
  await applyMigrations(postgres.url);
  const redis = withRedis ? await ownRedis(own) : undefined;
  return {
    folder,
    postgres,
    redis,
    close: async () => {
      await Promise.all([postgres.stop(), redis?.stop()]);
      process.off('exit', atExit);
      removeFolder(folder);
    },
  };
}
