import { createPrismaClient } from '../../database/client.ts';
import { recountSessions } from '../../services/sessionCounts.ts';
import { inEnvironment } from '../environment.ts';
import { ensureSchema } from '../schema.ts';
import { table } from '../table.ts';

export async function runSessionCounts(options: { json?: boolean }): Promise<void> {
  await inEnvironment({ ...options, needs: 'database' }, async (environment) => {
    const { closer, databaseUrl, result, stopping } = environment;
    await ensureSchema(environment);
    const prisma = createPrismaClient(databaseUrl, {
      poolSize: 1,
      applicationName: 'annals session counts',
    });
    closer.add('database', () => prisma.$disconnect());
    const found = await recountSessions(prisma, { signal: stopping });
    result(
      found,
      table(
        ['agents checked', 'corrected', 'sessions off'],
        [[found.checked, found.agents, found.drift]],
      ),
    );
    return 0;
  });
}
