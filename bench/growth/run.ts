import { applyMigrations } from '../../src/database/migrations.ts';
import { withClient } from '../backfill/data.ts';
import { CONTESTANTS, type ContestantName } from '../contestants/index.ts';
import { writeExpected } from '../ingest/database.ts';
import { describeGround, openGround, type Ground } from '../ingest/ground.ts';
import { PRODUCERS, type Load } from '../ingest/load.ts';
import { reportOf, summaryOf } from '../ingest/report.ts';
import { takeTurn, type Turn } from '../ingest/turn.ts';
import { hold, LOAD_SINCE, resetLoad } from './held.ts';

export interface GrowthOptions {
  rounds: number;
  /** Rows that the event tables hold before, one database for each. */
  sizes: readonly number[];
}

/**
 * Has Annals store the same load into tables of several sizes, taking turns between them. The first
 * turn in each is a warm-up: it reads back into memory what the filling has left on disk.
 */
export async function growth(load: Load, { rounds, sizes }: GrowthOptions) {
  const ground = await openGround();
  try {
    const settings = await describeGround(ground);
    console.log(JSON.stringify(settings, null, 2));
    const name: ContestantName = ground.redis ? 'annals-redis' : 'annals-postgres';
    const fields = new Map<number, { ground: Ground; bytes: number; turns: (Turn | Error)[] }>();
    for (const rows of sizes) {
      const databaseUrl = await createDatabase(ground.place.databaseUrl, `held_${rows}`);
      await hold(databaseUrl, load, rows);
      await writeExpected(databaseUrl, load);
      const bytes = await sizeOf(databaseUrl);
      console.log(`${rows} rows are held, ${Math.round(bytes / 2 ** 20)} MB with their indexes`);
      const own = { ...ground, place: { ...ground.place, databaseUrl } };
      fields.set(rows, { ground: own, bytes, turns: [] });
    }
    for (let round = 0; round <= rounds; round++) {
      for (const [rows, field] of fields) {
        const turn = await takeTurn(field.ground, name, load, load.events, {
          reset: resetLoad,
          since: LOAD_SINCE,
        }).catch((error: unknown) => error as Error);
        const label = round === 0 ? 'warm-up' : `round ${round}`;
        console.log(`${label}: ${rows} rows held: ${summaryOf(turn)}`);
        if (round > 0) field.turns.push(turn);
      }
    }
    const contestants = Array.from(fields, ([rowsBefore, { bytes, turns }]) => ({
      ...reportOf(name, turns),
      name: rowsBefore.toLocaleString('en'),
      rowsBefore,
      megabytesBefore: Math.round(bytes / 2 ** 20),
    }));
    const [first, last] = [contestants.at(0), contestants.at(-1)];
    return {
      contestants,
      ratioLastToFirst:
        first?.eventsPerSecond && last?.eventsPerSecond
          ? Math.round((last.eventsPerSecond / first.eventsPerSecond) * 100) / 100
          : null,
      about: CONTESTANTS[name].about,
      ...load,
      producers: PRODUCERS,
      rounds,
      ground: settings,
    };
  } finally {
    await ground.close();
  }
}

async function createDatabase(serverUrl: string, name: string): Promise<string> {
  await withClient(serverUrl, (client) => client.query(`CREATE DATABASE "${name}"`));
  const databaseUrl = Object.assign(new URL(serverUrl), { pathname: name }).href;
  await applyMigrations(databaseUrl);
  return databaseUrl;
}

/** Bytes of the tables in use, with their indexes. */
const sizeOf = (databaseUrl: string): Promise<number> =>
  withClient(databaseUrl, async (client) => {
    const { rows } = await client.query<{ bytes: number }>(
      `SELECT sum(pg_total_relation_size(oid))::float8 AS bytes FROM pg_class
       WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`,
    );
    return rows[0]?.bytes ?? NaN;
  });
