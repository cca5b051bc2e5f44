import { Prisma } from '../database/client.ts';
import { NotFoundError } from '../errors.ts';
import { isForeignKeyViolation } from './attempt.ts';

type Table = 'User' | 'AI_Agent' | 'AgentSession' | 'ModuleState' | 'InteractionMemory';

export function notFound(
  field: string,
  table: Table,
  id: string,
  hint = 'create it first',
): NotFoundError {
  return new NotFoundError(`${field}: there is no ${table} ${JSON.stringify(id)}; ${hint}`, {
    field,
    id,
  });
}

/** Makes sure that a row exists and stays until the transaction ends; others may still change it. */
export async function requireRow(
  tx: Prisma.TransactionClient,
  table: Table,
  field: string,
  id: string,
): Promise<void> {
  const locked =
    await tx.$executeRaw`SELECT 1 FROM ${quoted(table)} WHERE "id" = ${id} FOR KEY SHARE`;
  if (locked === 0) throw notFound(field, table, id);
}

/**
 * Makes calls about one row take turns until the transaction ends. A call locks one row so, before
 * it inserts anything; the event writers hold sessions and agents only FOR KEY SHARE, which waits
 * for no such lock. So no two of them can wait for each other.
 */
export async function lockRow(
  tx: Prisma.TransactionClient,
  table: Table,
  field: string,
  id: string,
): Promise<void> {
  const locked =
    await tx.$executeRaw`SELECT 1 FROM ${quoted(table)} WHERE "id" = ${id} FOR NO KEY UPDATE`;
  if (locked === 0) throw notFound(field, table, id);
}

/** Turns a foreign key's refusal into the error that names the argument. */
export async function orNotFound<T>(
  work: Promise<T>,
  field: string,
  table: Table,
  id: string,
): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw isForeignKeyViolation(error) ? notFound(field, table, id) : error;
  }
}

/** The key of the session with this `id` or else this `sessionId`. */
export async function resolveSession(
  db: Prisma.TransactionClient,
  idOrName: string,
): Promise<string> {
  const found = await db.agentSession.findMany({
    where: { OR: [{ id: idOrName }, { sessionId: idOrName }] },
    select: { id: true },
  });
  const session = found.find(({ id }) => id === idOrName) ?? found[0];
  if (!session) throw notFound('sessionId', 'AgentSession', idOrName);
  return session.id;
}

const quoted = (table: Table) => Prisma.raw(`"${table}"`);
