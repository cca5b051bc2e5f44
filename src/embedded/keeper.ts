import { setTimeout as sleep } from 'node:timers/promises';

import { EmbeddedServerError } from '../errors.ts';
import { freePort, type ServerProcess } from './process.ts';

/** How to run one server. */
export interface Plan {
  name: string;
  /** Whatever must be done once before the first start. */
  prepare(): Promise<void>;
  start(port: number): Promise<ServerProcess>;
  stop(server: ServerProcess): Promise<void>;
  /** Tried first, so that clients who outlived a killed supervisor find their server again. */
  preferredPort: number | undefined;
}

/** A server that is started when it is first wanted, and again whenever it ends by itself. */
export interface Keeper {
  /** Its port and pid, once it answers. Rejects when it cannot be started. */
  running(): Promise<{ port: number; pid: number }>;
  stop(): Promise<void>;
}

/** More restarts than this within a minute are a fault that restarting does not mend. */
const RESTARTS_PER_MINUTE = 10;

/** @param onHopeless - called once, when the server ends and cannot be started again */
export function keepRunning(
  plan: Plan,
  log: (line: string) => void,
  onHopeless: () => void,
): Keeper {
  let started: Promise<{ port: number; server: ServerProcess }> | undefined;
  let restarts: number[] = [];
  let stopping = false;

  const first = async () => {
    await plan.prepare();
    for (let attempt = 1; ; attempt++) {
      const port = await freePort(attempt === 1 ? plan.preferredPort : 0);
      try {
        return watched(port, await plan.start(port));
      } catch (error) {
        // Between our finding the port free and the server's taking it another may have taken it.
        const taken = (await freePort(port)) !== port;
        if (!taken || attempt === 5) throw error;
      }
    }
  };

  const watched = (port: number, server: ServerProcess) => {
    log(`${plan.name} runs on port ${port} (pid ${server.pid})`);
    void server.exited.then(() => {
      if (stopping) return;
      log(`${plan.name} (pid ${server.pid}) ended by itself; starting it again on port ${port}`);
      started = again(port);
      started.catch((error: Error) => {
        log(`${plan.name} cannot be started again: ${error.message}`);
        if (!stopping) onHopeless();
      });
    });
    return { port, server };
  };

  // Always on the same port, which is where its clients look for it.
  const again = async (port: number) => {
    for (;;) {
      const now = Date.now();
      restarts = [...restarts.filter((time) => time > now - 60_000), now];
      if (restarts.length > RESTARTS_PER_MINUTE) {
        throw new EmbeddedServerError(`it ended ${RESTARTS_PER_MINUTE} times within a minute`);
      }
      try {
        return watched(port, await plan.start(port));
      } catch (error) {
        log((error as Error).message);
        await sleep(Math.min(50 * 2 ** restarts.length, 5000));
        if (stopping) throw error;
      }
    }
  };

  return {
    running: async () => {
      started ??= first().catch((error: unknown) => {
        started = undefined; // whoever asks next may have mended the cause
        throw error;
      });
      const { port, server } = await started;
      return { port, pid: server.pid };
    },
    stop: async () => {
      stopping = true;
      const current = await started?.catch(() => undefined);
      if (current) await plan.stop(current.server);
    },
  };
}
