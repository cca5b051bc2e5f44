import { loadSettings } from '../config.ts';
import { createPrismaClient, type PrismaClient } from '../database/client.ts';
import { applyMigrations } from '../database/migrations.ts';
import { databaseUrlForThisProcess } from '../embedded/index.ts';

/** What the service opened itself, and how to close it. */
interface Opened {
  prisma: PrismaClient;
  close(): Promise<void>;
}

let given: PrismaClient | undefined;
let opened: Promise<Opened> | undefined;

/** The client that `useClient` set, else the process's own, opened on first use. */
export async function getClient(): Promise<PrismaClient> {
  if (given) return given;
  opened ??= open();
  try {
    return (await opened).prisma;
  } catch (error) {
    opened = undefined; // the next call tries again
    throw error;
  }
}

export function useClient(prisma: PrismaClient | undefined): PrismaClient | undefined {
  const earlier = given;
  given = prisma;
  return earlier;
}

export async function closeClient(): Promise<void> {
  const closing = opened;
  opened = undefined;
  await (await closing)?.close();
}

async function open(): Promise<Opened> {
  // A setting of workers or the board is no reason for an agent's call to fail.
  const config = loadSettings(['DATABASE_URL', 'ANNALS_DATA_DIR', 'ANNALS_DATABASE_POOL_SIZE']);
  // An embedded database is held until the process ends, since nobody is obliged to disconnect.
  const databaseUrl = await databaseUrlForThisProcess(config);
  if (config.DATABASE_URL === undefined) await applyMigrations(databaseUrl);
  const prisma = createPrismaClient(databaseUrl, {
    poolSize: config.ANNALS_DATABASE_POOL_SIZE,
    applicationName: 'annals service',
    exitWhenIdle: true,
  });
  return { prisma, close: () => prisma.$disconnect() };
}
