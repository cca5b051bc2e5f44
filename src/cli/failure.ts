import { AnnalsError, ConfigError, UsageError } from '../errors.ts';

/** Says on standard error what went wrong, in a line where we know it; returns the exit code. */
export async function reportFailure(error: unknown): Promise<1 | 2> {
  const message = error instanceof Error ? error.message : String(error);
  console.error(`annals: ${message}`);
  if (error instanceof Error && (await wantsStack())) console.error(error);
  else if (!(error instanceof AnnalsError)) {
    console.error('(ANNALS_LOG_LEVEL=debug shows where this came from)');
  }
  return error instanceof ConfigError || error instanceof UsageError ? 2 : 1;
}

async function wantsStack(): Promise<boolean> {
  const { loadConfig } = await import('../config.ts');
  try {
    return ['debug', 'trace'].includes(loadConfig().ANNALS_LOG_LEVEL);
  } catch {
    return false;
  }
}
