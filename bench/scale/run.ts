import { availableParallelism } from 'node:os';

import { CONTESTANTS, type ContestantName } from '../contestants/index.ts';
import { writeExpected } from '../ingest/database.ts';
import { describeGround, openGround } from '../ingest/ground.ts';
import { PRODUCERS, type Load } from '../ingest/load.ts';
import { reportOf, summaryOf } from '../ingest/report.ts';
import { takeTurn, type Turn } from '../ingest/turn.ts';

export interface ScaleOptions {
  rounds: number;
  /** Worker processes. */
  workers: readonly number[];
}

/** Has Annals store the same load with more and more worker processes, taking turns between them. */
export async function scale(load: Load, { rounds, workers }: ScaleOptions) {
  const ground = await openGround();
  try {
    const settings = await describeGround(ground);
    console.log(JSON.stringify(settings, null, 2));
    const names: ContestantName[] = ground.redis
      ? ['annals-redis', 'annals-postgres']
      : ['annals-postgres'];
    await writeExpected(ground.place.databaseUrl, load);
    const entries = names.flatMap((name) =>
      workers.map((count) => ({ name, workers: count, turns: [] as (Turn | Error)[] })),
    );
    for (let round = 1; round <= rounds; round++) {
      for (const entry of entries) {
        const turn = await takeTurn(ground, entry.name, load, load.events, {
          workers: entry.workers,
        }).catch((error: unknown) => error as Error);
        console.log(`round ${round}: ${entry.name}, ${entry.workers} workers: ${summaryOf(turn)}`);
        entry.turns.push(turn);
      }
    }
    const contestants = entries.map(({ name, workers: count, turns }) => {
      const report = reportOf(name, turns);
      const { eventsPerSecond: rate } = report;
      /** Of all cores, at the median rate. */
      const share = (secondsPerMillion: number | null) =>
        secondsPerMillion !== null && rate !== null
          ? Math.round((secondsPerMillion * rate * 1e-4) / availableParallelism())
          : null;
      return {
        ...report,
        name: `${name}, ${count}`,
        about: CONTESTANTS[name].about,
        workers: count,
        ownCpuPercent: share(report.cpuSecondsPerMillion),
        postgresCpuPercent: share(report.postgresCpuSecondsPerMillion),
        redisCpuPercent: share(report.redisCpuSecondsPerMillion),
      };
    });
    return { contestants, ...load, producers: PRODUCERS, rounds, ground: settings };
  } finally {
    await ground.close();
  }
}
