import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { sample } from './support/events.ts';
import { describeBackends, seedParents } from './support/pipeline.ts';
import { ROOT, run, spawnTsx } from './support/process.ts';

interface Span {
  service: string;
  name: string;
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  kind: number;
}

/** As OTLP has them. */
const [PRODUCER, CONSUMER] = [4, 5];

interface Export {
  resourceSpans: {
    resource: { attributes: { key: string; value: { stringValue?: string } }[] };
    scopeSpans: { spans: Omit<Span, 'service'>[] }[];
  }[];
}

const EVENT = JSON.stringify({ kind: 'memory-access', ...sample('memory-access', 0) });

/** Tells at the end how many files of OpenTelemetry's SDK the process has loaded. */
const TELL = `data:text/javascript,import { createRequire } from 'node:module';
process.on('exit', () => console.error('sdk files: ' + Object.keys(createRequire(process.cwd() + '/x.js').cache).filter((file) => file.includes('@opentelemetry/sdk-')).length));`;

describeBackends('tracing', (locate) => {
  let db: TestDatabase;
  let receiver: Server;
  let env: Record<string, string | undefined>;
  const spans: Span[] = [];

  beforeAll(async () => {
    db = await createTestDatabase();
    await seedParents(db);
    receiver = createServer((request, response) => {
      let body = '';
      request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
      request.on('end', () => {
        expect(request.url).toBe('/v1/traces');
        for (const { resource, scopeSpans } of (JSON.parse(body) as Export).resourceSpans) {
          const name = resource.attributes.find(({ key }) => key === 'service.name');
          const service = name?.value.stringValue ?? '';
          spans.push(
            ...scopeSpans.flatMap((scope) => scope.spans.map((span) => ({ ...span, service }))),
          );
        }
        response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
      });
    }).listen(0, '127.0.0.1');
    await once(receiver, 'listening');
    const location = locate(db);
    env = {
      DATABASE_URL: db.url,
      REDIS_URL: location.kind === 'redis' ? location.url : undefined,
      ANNALS_QUEUE_BACKEND: location.kind,
      ANNALS_QUEUE_PREFIX: location.prefix,
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`,
    };
  });
  afterAll(async () => {
    receiver.close();
    await db.drop();
  });

  /** The receiver as the variable for traces alone names it. */
  const traces = () => `${env['OTEL_EXPORTER_OTLP_ENDPOINT']}/v1/traces`;

  const emit = (more: Record<string, string | undefined> = {}) =>
    run(process.execPath, ['--import', 'tsx', '--import', TELL, `${ROOT}src/cli/main.ts`, 'emit'], {
      env: { ...env, ...more },
      input: `${EVENT}\n`,
    });

  it('crosses from the producer to the worker, in one trace', async () => {
    const emitted = await emit({ OTEL_SERVICE_NAME: 'agent' });
    expect(emitted).toMatchObject({ code: 0 });
    expect(emitted.stderr).toMatch(/sdk files: [1-9]/);
    const worker = spawnTsx('src/cli/main.ts', ['worker'], env);
    const exited = once(worker, 'exit');
    await expect
      .poll(() => db.sql('SELECT count(*)::int AS n FROM "MemoryAccess"'), { timeout: 30_000 })
      .toEqual([{ n: 1 }]);
    worker.kill('SIGTERM');
    expect(await exited).toEqual([0, null]);
    const produced = spans.find(({ kind, service }) => kind === PRODUCER && service === 'agent');
    const consumed = spans.filter(
      ({ kind, service, traceId }) =>
        kind === CONSUMER && service === 'annals' && traceId === produced?.traceId,
    );
    expect(produced?.name).toContain('memory-access');
    expect(consumed.map(({ parentSpanId }) => parentSpanId)).toContain(produced?.spanId);
  });

  it('loads nothing of it and sends nothing where it is not asked for', async () => {
    spans.length = 0;
    const off = [
      { OTEL_EXPORTER_OTLP_ENDPOINT: undefined },
      { OTEL_SDK_DISABLED: 'true' },
      { OTEL_TRACES_EXPORTER: 'none' },
    ];
    for (const more of off) {
      expect(await emit(more)).toMatchObject({
        code: 0,
        stderr: expect.stringContaining('sdk files: 0'),
      });
    }
    expect(spans).toEqual([]);
  });

  it('obeys the variables for traces alone: endpoint and sampler', async () => {
    spans.length = 0;
    const alone = {
      OTEL_EXPORTER_OTLP_ENDPOINT: undefined,
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: traces(),
    };
    expect(await emit(alone)).toMatchObject({ code: 0 });
    expect(spans.map(({ kind }) => kind)).toContain(PRODUCER);
    for (const none of [
      { OTEL_TRACES_SAMPLER: 'always_off' },
      { OTEL_TRACES_SAMPLER: 'parentbased_traceidratio', OTEL_TRACES_SAMPLER_ARG: '0' },
    ]) {
      spans.length = 0;
      const { code, stderr } = await emit({ ...alone, ...none });
      expect({ code, stderr }).toMatchObject({
        code: 0,
        stderr: expect.stringMatching(/files: [1-9]/),
      });
      expect(spans).toEqual([]);
    }
    const odd = { OTEL_TRACES_SAMPLER: 'jaeger_remote', OTEL_TRACES_SAMPLER_ARG: '2' };
    const { code, stderr } = await emit({ ...alone, ...odd });
    expect(code).toBe(0);
    expect(stderr).toMatch(/OTEL_TRACES_SAMPLER: Annals knows no "jaeger_remote"/);
    expect(stderr).toMatch(/OTEL_TRACES_SAMPLER_ARG takes a share/);
    expect(spans.map(({ kind }) => kind)).toContain(PRODUCER);
  });

  it('loses no event where the receiver is away', async () => {
    const since = performance.now();
    expect(await emit({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1' })).toMatchObject({
      code: 0,
    });
    expect(performance.now() - since).toBeLessThan(15_000);
  });
});
