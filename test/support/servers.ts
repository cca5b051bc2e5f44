import { tmpdir } from 'node:os';

import {
  ownPostgres,
  ownRedis,
  type OwnPostgresOptions,
  type OwnRedisOptions,
  type OwnServer,
} from './ownServers.ts';
import { forgetPid, killAtExit } from './pids.ts';
import type { TestServer } from './serverControl.ts';

export type { TestServer };

/** Part of the run: what is left of it goes with the run. */
const ofTheRun: OwnServer = {
  parent: tmpdir(),
  onStart: ({ pid, exited }) => {
    killAtExit(pid);
    void exited.then(() => forgetPid(pid));
  },
};

/** A PostgreSQL that a test file has to itself. */
export const startPostgres = (options?: OwnPostgresOptions): Promise<TestServer> =>
  ownPostgres(ofTheRun, options);

/** A Redis that a test file has to itself; only inside `describeRedis`. */
export const startRedis = (options?: OwnRedisOptions): Promise<TestServer> =>
  ownRedis(ofTheRun, options);
