import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { FastifyAdapter } from '@bull-board/fastify';
import helmet from '@fastify/helmet';
import fastify, { type FastifyInstance } from 'fastify';

import { ConfigError } from '../errors.ts';
import { isAuthorised, refusalOf, type AccessConfig } from './access.ts';
import { expose, EXPOSITION_TYPE } from './exposition.ts';
import { addOverview } from './page.ts';
import type { AllQueues } from './queues.ts';
import type { Checks, Watch } from './watch.ts';

/** Routes that answer whoever asks: what starts and stops containers has no credentials. */
const OPEN_ROUTES = ['/healthz', '/readyz'];

/** Where Bull Board lives. */
const QUEUES_PATH = '/queues';

/** Milliseconds without a look after which the board itself is what is wrong. */
const BLIND_MS = 10_000;

const FOREIGN_STYLES = /<link\b[^>]*\bhref="https?:[^>]*>/g;

/** Makes the board's server; `listen` on it opens it to the world. */
export async function createServer(
  config: AccessConfig,
  watch: Watch,
  queues: Pick<AllQueues, 'ready'>,
): Promise<FastifyInstance> {
  const server = fastify({
    forceCloseConnections: true,
    routerOptions: { ignoreTrailingSlash: true },
  });
  await server.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'none'"],
        scriptSrc: ["'self'"],
        styleSrc: ["'self'", "'unsafe-inline'"], // Bull Board and uPlot set styles from scripts
        imgSrc: ["'self'", 'data:'],
        fontSrc: ["'self'"],
        connectSrc: ["'self'"],
        baseUri: ["'self'"],
        formAction: ["'self'"],
        frameAncestors: ["'none'"],
      },
    },
    strictTransportSecurity: false, // for whoever ends TLS before us to say
    referrerPolicy: { policy: 'same-origin' },
  });
  server.addHook('onRequest', async (request, reply) => {
    void reply.header('cache-control', 'no-store');
    if (OPEN_ROUTES.includes(request.routeOptions.url ?? '')) return;
    const refusal = refusalOf(config, request);
    if (!refusal) return;
    if (refusal.status === 401) void reply.header('www-authenticate', 'Basic realm="Annals"');
    await reply.code(refusal.status).type('text/plain').send(`${refusal.message}\n`);
  });

  // Bull Board asks a font server of the Internet, which neither our policy nor many networks allow,
  // and which need not know who looks at queues.
  server.addHook('onSend', async (_, reply, payload) => {
    const isPage = String(reply.getHeader('content-type')).startsWith('text/html');
    return isPage && typeof payload === 'string' ? payload.replace(FOREIGN_STYLES, '') : payload;
  });

  server.get('/healthz', async () => ({ status: 'ok' }));
  server.get('/readyz', async (request, reply) => {
    const { at, checks } = watch.sight();
    const isBlind = at > 0 && Date.now() - at > BLIND_MS;
    const isReady = !isBlind && Object.values(checks).every((fault) => fault === null);
    return reply.code(isReady ? 200 : 503).send({
      status: isReady ? 'ok' : 'unavailable',
      checks: tell(checks, isAuthorised(config, request)),
    });
  });
  server.get('/metrics', async (_, reply) => {
    const text = await expose(watch.sight());
    return reply.type(EXPOSITION_TYPE).send(text);
  });
  addOverview(server, watch);
  await addBullBoard(server, queues, config.ANNALS_BOARD_READ_ONLY);
  return server;
}

/** Reasons name hosts and jobs, which are for those who may see the board. */
function tell(checks: Checks, inDetail: boolean): Record<string, string> {
  return Object.fromEntries(
    Object.entries(checks).map(([part, fault]: [string, string | null]) => [
      part,
      fault === null ? 'ok' : inDetail ? fault : 'unavailable',
    ]),
  );
}

async function addBullBoard(
  server: FastifyInstance,
  queues: Pick<AllQueues, 'ready'>,
  readOnly: boolean,
) {
  const serverAdapter = new FastifyAdapter();
  serverAdapter.setBasePath(QUEUES_PATH);
  const { setQueues } = createBullBoard({
    queues: [],
    serverAdapter,
    options: {
      uiConfig: { boardTitle: 'Annals queues', miscLinks: [{ text: 'Overview', url: '/' }] },
    },
  });
  await server.register(serverAdapter.registerPlugin(), { prefix: QUEUES_PATH });
  void queues.ready.then(
    (open) => setQueues(open.map((queue) => new BullMQAdapter(queue, { readOnlyMode: readOnly }))),
    () => {}, // /readyz says why
  );
}

/**
 * @returns the URL that the server answers at
 * @throws {ConfigError} when the address is taken, or not one of this machine
 */
export async function listen(server: FastifyInstance, host: string, port: number): Promise<string> {
  try {
    return await server.listen({ host, port });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const reasons: Record<string, string> = {
      EADDRINUSE: `port ${port} is in use; set ANNALS_BOARD_PORT to another`,
      EACCES: `port ${port} needs rights that this process lacks; set ANNALS_BOARD_PORT to another`,
      EADDRNOTAVAIL: `${host} is not an address of this machine; set ANNALS_BOARD_HOST to one`,
      ENOTFOUND: `${host} is not known; set ANNALS_BOARD_HOST to an address of this machine`,
    };
    const reason = reasons[code ?? ''];
    if (!reason) throw cause;
    throw new ConfigError(`The board cannot listen: ${reason}.`, { cause });
  }
}
