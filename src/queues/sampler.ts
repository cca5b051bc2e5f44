import type { Sampler } from '@opentelemetry/sdk-trace';

export type Sdk = typeof import('@opentelemetry/sdk-trace');

/** What decides on a trace that nobody has decided on, by OpenTelemetry's names. */
const ROOTS: Readonly<Record<string, (sdk: Sdk, share: number) => Sampler>> = {
  always_on: ({ AlwaysOnSampler }) => new AlwaysOnSampler(),
  always_off: ({ AlwaysOffSampler }) => new AlwaysOffSampler(),
  traceidratio: ({ TraceIdRatioBasedSampler }, share) => new TraceIdRatioBasedSampler(share),
};

const PARENT_BASED = 'parentbased_';

/**
 * The sampler that OTEL_TRACES_SAMPLER and its argument mean, which the SDK does not read itself. As
 * OpenTelemetry has it, what is unknown or out of range is warned of, and all is sent.
 */
export function samplerOf(
  sdk: Sdk,
  name: string,
  argument: string,
  warn: (text: string) => void,
): Sampler {
  const root = ROOTS[name.replace(PARENT_BASED, '')];
  if (!root) warn(`OTEL_TRACES_SAMPLER: Annals knows no ${JSON.stringify(name)}; all is traced`);
  const share = Number(argument);
  const isShare = share >= 0 && share <= 1;
  if (!isShare) warn('OTEL_TRACES_SAMPLER_ARG takes a share from 0 to 1; all is traced');
  const sampler = (root ?? (() => new sdk.AlwaysOnSampler()))(sdk, isShare ? share : 1);
  const isParentBased = !root || name.startsWith(PARENT_BASED);
  return isParentBased ? new sdk.ParentBasedSampler({ root: sampler }) : sampler;
}
