import { CONTESTANTS, type ContestantName } from '../contestants/index.ts';
import type { Contestant } from '../contestants/contestant.ts';
import { measureBacklog, type Backlog } from './backlog.ts';
import { writeExpected } from './database.ts';
import { describeGround, openGround } from './ground.ts';
import { PRODUCERS, type Load } from './load.ts';
import { ratio, reportOf, summaryOf } from './report.ts';
import { eventsFor, takeTurn, type Turn } from './turn.ts';

export interface IngestOptions {
  rounds: number;
  contestants: readonly ContestantName[];
  warmUp: boolean;
}

/** Has the contestants take turns in each round, on the same ground. */
export async function ingest(load: Load, { rounds, contestants: names, warmUp }: IngestOptions) {
  const ground = await openGround();
  try {
    const settings = await describeGround(ground);
    console.log(JSON.stringify(settings, null, 2));
    const present = names.filter((name) => {
      const contestant: Contestant = CONTESTANTS[name];
      const isPresent = ground.redis !== null || !contestant.needsRedis;
      if (!isPresent) console.log(`${name} is left out: redis-server is not on the PATH`);
      return isPresent;
    });
    await writeExpected(ground.place.databaseUrl, load);

    const turns = new Map<ContestantName, (Turn | Error)[]>(present.map((name) => [name, []]));
    for (let round = 1; round <= rounds; round++) {
      for (const name of present) {
        const events = eventsFor(CONTESTANTS[name], load.events);
        const options = warmUp ? {} : { warmUp: 0 };
        const turn = await takeTurn(ground, name, load, events, options).catch(
          (error: unknown) => error as Error,
        );
        console.log(`round ${round}: ${name}: ${summaryOf(turn)}`);
        turns.get(name)?.push(turn);
      }
    }
    const contestants = [...turns].map(([name, each]) => reportOf(name, each));
    const backlog: Backlog[] = [];
    for (const name of present.filter((each) => each.startsWith('annals'))) {
      const found = await measureBacklog(ground, name, load);
      console.log(`${name}: ${found.bytesPerEvent} bytes of a waiting event in the queue`);
      backlog.push(found);
    }
    return {
      contestants,
      backlog,
      ratioToFloor: ratio(contestants, 'annals-redis', 'floor'),
      ratioToOneJobPerEvent: ratio(contestants, 'annals-redis', 'one-job-per-event'),
      ratioToPgBoss: ratio(contestants, 'annals-redis', 'pg-boss'),
      ratioToGraphileWorker: ratio(contestants, 'annals-redis', 'graphile-worker'),
      ratioToDirect: ratio(contestants, 'annals-redis', 'direct'),
      ratioPostgresToRedis: ratio(contestants, 'annals-postgres', 'annals-redis'),
      ...load,
      producers: PRODUCERS,
      rounds,
      warmUp,
      ground: settings,
    };
  } finally {
    await ground.close();
  }
}
