import type { QueueLocation } from '../../src/queues/backend.ts';
import type { TestServer } from '../../test/support/serverControl.ts';
import { openServers } from '../servers.ts';
import { startProxy, type Proxy } from './proxy.ts';

/** A server, and the way to it that everybody but the audit takes. */
export interface Server {
  control: TestServer;
  proxy: Proxy;
}

/** Durable servers of a run's own, and a folder for what its processes leave. */
export interface ChaosGround {
  folder: string;
  postgres: Server;
  redis: Server | undefined;
  /** By way of the proxy, as `queue` is. */
  databaseUrl: string;
  queue: QueueLocation;
  close(): Promise<void>;
}

export async function openChaosGround(backend: QueueLocation['kind']): Promise<ChaosGround> {
  const servers = await openServers('chaos', { withRedis: backend === 'redis' });
  const postgres = await withProxy(servers.postgres);
  const redis = servers.redis && (await withProxy(servers.redis));
  return {
    folder: servers.folder,
    postgres,
    redis,
    databaseUrl: postgres.proxy.url,
    queue: { kind: backend, url: (redis ?? postgres).proxy.url, prefix: 'annals' },
    close: async () => {
      for (const server of [redis, postgres]) server?.proxy.close();
      await servers.close();
    },
  };
}

async function withProxy(control: TestServer): Promise<Server> {
  return { control, proxy: await startProxy(control.url) };
}
