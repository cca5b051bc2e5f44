import type { Transform } from '../transform.ts';
import { agents } from './agents.ts';
import { agentSessions } from './agentSessions.ts';
import { interactionMemories } from './interactionMemories.ts';
import { moduleStates } from './moduleStates.ts';

/** Every table that is backfilled, in the order in which people are told of them. */
export const TRANSFORMS: readonly Transform[] = [
  agentSessions,
  moduleStates,
  agents,
  interactionMemories,
];

/** @throws {Error} when a newer program began the run */
export function transformOf(name: string): Transform {
  const found = TRANSFORMS.find((transform) => transform.name === name);
  if (!found) throw new Error(`this version knows no backfill of ${JSON.stringify(name)}`);
  return found;
}
