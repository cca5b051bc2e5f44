import type { Sampler } from '@opentelemetry/sdk-trace';
import type { Telemetry } from 'bullmq';

import { loadSettings } from '../config.ts';
import { samplerOf, type Sdk } from './sampler.ts';

/** What the queues of this process trace with; OpenTelemetry, too, has one of a process. */
interface Tracing {
  telemetry: Telemetry;
  flush: () => Promise<void>;
}

let starting: Promise<Tracing | undefined> | undefined;
let tracing: Tracing | undefined;

/** Milliseconds that a process which ends gives its last spans. */
const FLUSH_MS = 1000;

/**
 * Starts tracing where OpenTelemetry's variables name a receiver, once in a process; nothing of it is
 * loaded otherwise. What they say that we cannot do is warned of, and never a fault: an agent has them
 * for its own sake, and gRPC's `localhost:4317` may be right for that. An agent that has set up OpenTelemetry itself keeps what it has, and its spans and
 * ours are of one kind.
 */
export async function startTracing(): Promise<void> {
  starting ??= startIfAsked();
  tracing = await starting;
}

/** Where traces go; what stands first wins. */
const ENDPOINTS = ['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', 'OTEL_EXPORTER_OTLP_ENDPOINT'] as const;

const warn = (text: string) => process.emitWarning(text, 'AnnalsWarning');

async function startIfAsked(): Promise<Tracing | undefined> {
  const settings = loadSettings([
    ...ENDPOINTS,
    'OTEL_SDK_DISABLED',
    'OTEL_TRACES_EXPORTER',
    'OTEL_TRACES_SAMPLER',
    'OTEL_TRACES_SAMPLER_ARG',
  ]);
  const exporters = settings.OTEL_TRACES_EXPORTER.split(',').map((name) => name.trim());
  if (settings.OTEL_SDK_DISABLED || !exporters.includes('otlp')) return undefined;
  const named = ENDPOINTS.find((name) => settings[name] !== undefined);
  if (named === undefined) return undefined;
  const endpoint = settings[named] ?? '';
  if (URL.canParse(endpoint) && /^https?:$/.test(new URL(endpoint).protocol)) {
    const { OTEL_TRACES_SAMPLER: sampler, OTEL_TRACES_SAMPLER_ARG: argument } = settings;
    return start((sdk) => samplerOf(sdk, sampler, argument, warn));
  }
  warn(`${named} is no URL of http:// or https://, as which Annals sends traces: none is sent`);
  return undefined;
}

/** The options of a queue or worker that make it trace, if it is to. */
export function traced(): { telemetry?: Telemetry } {
  return tracing ? { telemetry: tracing.telemetry } : {};
}

/** Sends the spans that are held, in a second at most. Never rejects. */
export async function flushTraces(): Promise<void> {
  if (!tracing) return;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, FLUSH_MS)));
  await Promise.race([tracing.flush().catch(() => {}), late]);
  clearTimeout(timer);
}

async function start(createSampler: (sdk: Sdk) => Sampler): Promise<Tracing> {
  const [api, { BullMQOtel }, core, context, exporter, resources, sdk] = await Promise.all([
    import('@opentelemetry/api'),
    import('bullmq-otel'),
    import('@opentelemetry/core'),
    import('@opentelemetry/context-async-hooks'),
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('@opentelemetry/resources'),
    import('@opentelemetry/sdk-trace'),
  ]);
  // The exporter and the resource read the variables themselves, as in every other program.
  const named = resources.detectResources({ detectors: [resources.envDetector] });
  const provider = new sdk.TracerProvider({
    resource: resources
      .defaultResource()
      .merge(resources.resourceFromAttributes({ 'service.name': 'annals' }))
      .merge(named),
    sampler: createSampler(sdk),
    spanProcessors: [new sdk.BatchSpanProcessor({ exporter: new exporter.OTLPTraceExporter() })],
  });
  // False where the agent has a provider of its own.
  const isOurs = api.trace.setGlobalTracerProvider(provider);
  if (isOurs) {
    api.context.setGlobalContextManager(new context.AsyncLocalStorageContextManager());
    api.propagation.setGlobalPropagator(new core.W3CTraceContextPropagator());
  }
  const telemetry = new BullMQOtel({ tracerName: 'annals' });
  return {
    telemetry: telemetry as unknown as Telemetry,
    flush: async () => (isOurs ? provider.forceFlush() : undefined),
  };
}
