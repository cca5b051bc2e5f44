// What an enhanced column holds where its writer does not say: what the backfill gives a plain row
// (src/backfill/transforms), so that a row that the service wrote needs no backfill.

/** The source of a session that names none. */
export const SESSION_SOURCE = 'user';

/** The source of a memory that names none. */
export const MEMORY_SOURCE = 'user_input';

/** The first text under `purpose`, `intent` or `goal` of a session's context. */
export function purposeOf(context: unknown): string | null {
  const texts = ['purpose', 'intent', 'goal'].map((name) => field(context, name));
  return texts.find((text): text is string => typeof text === 'string' && text !== '') ?? null;
}

/** Bytes of a tag at most: the index on tags refuses a row with one that is larger than 2,700. */
export const TAG_BYTES = 2600;

/** The strings of `tags`, or else of `categories`, of a session's context. */
export function tagsOf(context: unknown): string[] {
  const list = ['tags', 'categories'].map((name) => field(context, name)).find(Array.isArray) ?? [];
  return list.filter(
    (tag: unknown) => typeof tag === 'string' && Buffer.byteLength(tag) <= TAG_BYTES,
  );
}

const MEMORY_TYPES: ReadonlyMap<string, string> = new Map([
  ['fact', 'fact'],
  ['knowledge', 'fact'],
  ['preference', 'preference'],
  ['setting', 'preference'],
  ['interaction', 'interaction'],
  ['conversation', 'interaction'],
]);

export const memoryTypeOf = (type: string): string | null =>
  MEMORY_TYPES.get(type.toLowerCase()) ?? null;

/** @returns 0..1 */
export const confidenceOf = (importance: number): number => Math.min(Math.max(importance, 0), 1);

function field(context: unknown, name: string): unknown {
  const isObject = typeof context === 'object' && context !== null && Object.hasOwn(context, name);
  return isObject ? (context as Record<string, unknown>)[name] : undefined;
}
