import { applyMigrations, migrationStatus } from '../../database/migrations.ts';
import { inEnvironment } from '../environment.ts';
import type { MigrateOptions } from '../migrate.ts';

export async function migrate(options: MigrateOptions): Promise<void> {
  await inEnvironment({ ...options, needs: 'database' }, async (environment) => {
    const { config, databaseUrl, result, stopping } = environment;
    if (options.status) {
      const { applied, pending, failed, baselineNeeded } = await migrationStatus(databaseUrl);
      const isUpToDate = pending.length + failed.length === 0;
      const lines = [
        ...list(failed, 'failed'),
        ...list(pending, 'pending'),
        isUpToDate
          ? 'The database is up to date.'
          : `Apply with: npx annals migrate${baselineNeeded ? ' --baseline' : ''}`,
      ];
      result({ isUpToDate, applied, pending, failed, baselineNeeded }, lines.join('\n'));
      return isUpToDate ? 0 : 1;
    }
    const applied = await applyMigrations(databaseUrl, {
      baseline: options.baseline ?? false,
      heal: config.DATABASE_URL === undefined,
      onOutput: (line) => console.error(line),
      signal: stopping,
    });
    const lines =
      applied.length === 0 ? ['The database was up to date.'] : list(applied, 'applied');
    result({ applied }, lines.join('\n'));
    return 0;
  });
}

function list(names: string[], state: string): string[] {
  if (names.length === 0) return [];
  const counted = `${names.length} migration${names.length === 1 ? '' : 's'}`;
  return [`${counted} ${state}:`, ...names.map((name) => `  ${name}`)];
}
