import { Dice } from '../../src/demo/dice.ts';

/** What can happen to whom. `seconds` is how long it lasts: a range that the dice choose from. */
export const FAULTS = {
  'kill a producer': { target: 'producer', how: 'kill' },
  'kill a worker': { target: 'worker', how: 'kill' },
  'kill Redis': { target: 'redis', how: 'outage', seconds: [0, 0] },
  'kill PostgreSQL': { target: 'postgres', how: 'outage', seconds: [0, 0] },
  'freeze a producer': { target: 'producer', how: 'pause', seconds: [1, 4] },
  'freeze a worker': { target: 'worker', how: 'pause', seconds: [1, 4] },
  'freeze Redis': { target: 'redis', how: 'pause', seconds: [1, 4] },
  'freeze PostgreSQL': { target: 'postgres', how: 'pause', seconds: [1, 4] },
  'reset connections to Redis': { target: 'redis', how: 'reset' },
  'reset connections to PostgreSQL': { target: 'postgres', how: 'reset' },
  'Redis away': { target: 'redis', how: 'outage', seconds: [10, 10] },
  'PostgreSQL away': { target: 'postgres', how: 'outage', seconds: [10, 10] },
  'spools full': { target: 'queue', how: 'fill' },
} as const satisfies Record<string, Fault>;

type Target = 'producer' | 'worker' | 'redis' | 'postgres' | 'queue';

interface Fault {
  target: Target;
  how: 'kill' | 'pause' | 'reset' | 'outage' | 'fill';
  seconds?: readonly [least: number, most: number];
}

export type FaultName = keyof typeof FAULTS;

/** One blow: after a rest, a fault, to one of the processes of its kind. */
export interface Blow {
  fault: FaultName;
  /** Milliseconds of undisturbed work before it. */
  restMs: number;
  /** Milliseconds that it lasts. */
  lastsMs: number;
  /** Which of the target's processes, from 0 to 1. */
  victim: number;
}

/** Blows in a round. */
const BLOWS = 3;

/**
 * The blows of each round, which depend on nothing but the seed and the back end. Each fault comes
 * once before any comes again.
 */
export function makeSchedule(seed: number, rounds: number, hasRedis: boolean): Blow[][] {
  const possible = (Object.keys(FAULTS) as FaultName[]).filter(
    (fault) => hasRedis || FAULTS[fault].target !== 'redis',
  );
  let left: FaultName[] = [];
  return Array.from({ length: rounds }, (_, round) =>
    Array.from({ length: BLOWS }, (__, blow) => {
      const dice = new Dice('chaos', seed, round, blow);
      if (left.length === 0) left = [...possible];
      const [fault] = left.splice(dice.below(left.length), 1) as [FaultName];
      const { seconds = [0, 0] }: Fault = FAULTS[fault];
      return {
        fault,
        restMs: 500 + dice.below(1500),
        lastsMs: 1000 * (seconds[0] + dice.next() * (seconds[1] - seconds[0])),
        victim: dice.next(),
      };
    }),
  );
}
