import { afterAll, beforeAll } from 'vitest';

import { EnhancedSchemaService } from '../../src/services/enhancedSchemaService.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

/** A database with the user `user-id` and the agent `agent-id` alone, which the service works on. */
export function useServiceDatabase(): { current: TestDatabase } {
  const holder = {} as { current: TestDatabase };
  beforeAll(async () => {
    holder.current = await createTestDatabase();
    await createUserAndAgent(holder.current);
    EnhancedSchemaService.use(holder.current.prisma);
  });
  afterAll(async () => {
    EnhancedSchemaService.use(undefined);
    await holder.current?.drop();
  });
  return holder;
}

export async function createUserAndAgent({ prisma }: TestDatabase): Promise<void> {
  await prisma.user.create({ data: { id: 'user-id' } });
  await prisma.aI_Agent.create({
    data: { id: 'agent-id', userId: 'user-id', name: 'Agent', capabilities: [], configuration: {} },
  });
}

/** Runs `work` so many times at once. */
export function atOnce<T>(times: number, work: (index: number) => Promise<T>): Promise<T[]> {
  return Promise.all(Array.from({ length: times }, (_, index) => work(index)));
}

export const one = <T>(rows: T[]): T => {
  if (rows.length !== 1) throw new Error(`${rows.length} rows instead of one`);
  return rows[0] as T;
};
