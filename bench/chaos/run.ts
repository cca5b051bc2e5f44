import { setTimeout as sleep } from 'node:timers/promises';

import pg from 'pg';

import { KEEP_MS } from '../../src/producers/outlet.ts';
import { openQueue, type EventQueue, type QueueLocation } from '../../src/queues/backend.ts';
import { EVENT_KINDS } from '../../src/queues/events.ts';
import { audit, seedParents, type Findings } from './audit.ts';
import { Crew } from './crew.ts';
import { openChaosGround, type ChaosGround, type Server } from './ground.ts';
import { readNotes } from './notes.ts';
import { FAULTS, makeSchedule, type Blow } from './schedule.ts';

/** Seconds in which events flow again after a fault; the design's promise 5. */
const RECOVERY_BOUND = 5;

/** The same where a spool is full: first it has to be emptied. */
const FULL_SPOOL_BOUND = RECOVERY_BOUND + KEEP_MS.unsaid / 1000;

export interface ChaosReport extends Findings {
  /** Nothing lost, doubled or miscounted, no attempt burned, and back in time after every fault. */
  ok: boolean;
  queue: QueueLocation['kind'];
  seed: number;
  rounds: number;
  /** Processes killed with -9, servers among them. */
  kills: number;
  /** Processes frozen with SIGSTOP. */
  pauses: number;
  /** Times that a server was away for long. */
  outages: number;
  /** Times that all connections to a server were reset. */
  resets: number;
  /** Emits that returned, an event emitted twice counted twice. */
  accepted: number;
  /** Emits that a full spool refused, with an error. */
  refused: number;
  deadLetters: number;
  /** Attempts of jobs that failed, for whatever reason. */
  attemptsBurned: number;
  /** Seconds from the end of a fault until an event emitted after it is committed. */
  recoverySeconds: Spread;
  /**
   * The same where a spool was still full, as after two outages in a row: events are refused until
   * there is room, which on a Redis that does not say what it has on disk is 5 s after it took what
   * the spool holds.
   */
  fullSpoolSeconds: Spread;
}

/** 0 where there was none. */
interface Spread {
  median: number;
  max: number;
}

/** One run on one back end, on servers of its own. */
export async function chaos(
  backend: QueueLocation['kind'],
  rounds: number,
  seed: number,
): Promise<ChaosReport> {
  const ground = await openChaosGround(backend);
  // Not by way of the proxy: the audit is not part of what is disturbed.
  const client = new AuditClient(ground.postgres.control.url);
  let crew: Crew | undefined;
  try {
    await client.use(seedParents);
    crew = new Crew(ground);
    const run = new Run(ground, crew, client);
    await run.recovered(Date.now());
    for (const [round, blows] of makeSchedule(seed, rounds, ground.redis !== undefined).entries()) {
      console.log(`round ${round + 1}: ${blows.map(({ fault }) => fault).join(', ')}`);
      for (const blow of blows) await run.strike(blow);
    }
    const left = await crew.finishProducers();
    if (crew.crashes.length > 0) throw new Error(crew.crashes.join('\n'));
    if (left > 0) throw new Error(`the producers could not deliver ${left} events`);
    const findings = await run.settle();
    if (crew.crashes.length > 0) throw new Error(crew.crashes.join('\n'));
    const isWhole =
      findings.lost + findings.duplicated + findings.counterErrors + findings.attemptsBurned === 0;
    const tally = run.tally();
    const isInTime =
      tally.recoverySeconds.max <= RECOVERY_BOUND && tally.fullSpoolSeconds.max <= FULL_SPOOL_BOUND;
    return { ok: isWhole && isInTime, queue: backend, seed, rounds, ...tally, ...findings };
  } finally {
    crew?.kill();
    await ground.close();
  }
}

class Run {
  readonly #ground: ChaosGround;
  readonly #crew: Crew;
  readonly #client: AuditClient;
  readonly #counts = { kills: 0, pauses: 0, outages: 0, resets: 0 };
  readonly #recoveries: { isFull: boolean; seconds: number }[] = [];

  constructor(ground: ChaosGround, crew: Crew, client: AuditClient) {
    this.#ground = ground;
    this.#crew = crew;
    this.#client = client;
  }

  tally() {
    const spread = (ofFull: boolean): Spread => {
      const seconds = this.#recoveries
        .filter(({ isFull }) => isFull === ofFull)
        .map((recovery) => recovery.seconds)
        .toSorted((a, b) => a - b);
      return {
        median: seconds[Math.floor(seconds.length / 2)] ?? 0,
        max: seconds.at(-1) ?? 0,
      };
    };
    return {
      ...this.#counts,
      refused: this.#crew.refused,
      recoverySeconds: spread(false),
      fullSpoolSeconds: spread(true),
    };
  }

  async strike({ fault, restMs, lastsMs, victim }: Blow): Promise<void> {
    await sleep(restMs);
    const { target, how } = FAULTS[fault];
    if (target === 'producer' || target === 'worker') {
      const members = target === 'producer' ? this.#crew.producers : this.#crew.workers;
      const member = members[Math.floor(victim * members.length)] as (typeof members)[number];
      if (how === 'kill') {
        this.#counts.kills++;
        await member.kill();
        member.start();
      } else {
        this.#counts.pauses++;
        member.child.kill('SIGSTOP');
        await sleep(lastsMs);
        member.child.kill('SIGCONT');
      }
    } else await this.#strikeServer(this.#server(target), how, lastsMs);
    const { refused } = this.#crew;
    const seconds = await this.recovered(Date.now());
    this.#recoveries.push({ isFull: this.#crew.refused > refused, seconds });
    console.log(`  ${fault}: back after ${seconds.toFixed(2)} s`);
  }

  async #strikeServer({ control, proxy }: Server, how: string, lastsMs: number): Promise<void> {
    switch (how) {
      case 'reset':
        this.#counts.resets++;
        proxy.reset();
        return;
      case 'pause':
        this.#counts.pauses++;
        control.pause();
        await sleep(lastsMs);
        control.resume();
        return;
      case 'fill': {
        this.#counts.outages++;
        const { refused } = this.#crew;
        await control.kill();
        for (let waited = 0; this.#crew.refused === refused; waited += 50) {
          if (waited > 120_000) throw new Error('the spools did not fill within 120 s');
          await sleep(50);
        }
        break;
      }
      default:
        if (lastsMs > 0) this.#counts.outages++;
        await control.kill();
        await sleep(lastsMs);
    }
    this.#counts.kills++;
    await control.restart();
  }

  #server(target: 'redis' | 'postgres' | 'queue'): Server {
    const { postgres, redis } = this.#ground;
    return target === 'postgres' ? postgres : (redis ?? postgres);
  }

  /** Seconds until an event that was emitted after `sinceMs` is committed. */
  async recovered(sinceMs: number): Promise<number> {
    for (;;) {
      const isBack = await this.#client.use(async (client) => {
        const { rows } = await client.query<{ is: boolean }>(
          `SELECT EXISTS (SELECT FROM "SessionEvent" WHERE "occurredAt" > $1::timestamp) AS "is"`,
          [new Date(sinceMs).toISOString()],
        );
        return rows[0]?.is;
      });
      const seconds = (Date.now() - sinceMs) / 1000;
      if (isBack) return seconds;
      if (this.#crew.crashes.length > 0) throw new Error(this.#crew.crashes.join('\n'));
      if (seconds > 60) throw new Error('nothing was committed for 60 s after a fault');
      await sleep(25);
    }
  }

  /** Waits until the queues are empty, and holds the tables against the producers' notes. */
  async settle(): Promise<
    Findings & Pick<ChaosReport, 'accepted' | 'deadLetters' | 'attemptsBurned'>
  > {
    const { queue, redis, postgres, folder } = this.#ground;
    const location = { ...queue, url: (redis ?? postgres).control.url };
    const queues = EVENT_KINDS.map((kind) => openQueue(location, kind));
    try {
      await drained(queues);
      const attemptsBurned = this.#crew.burnedAttempts();
      const dead = await deadLetters(queues);
      const claim = readNotes(folder);
      const findings = await this.#client.use((client) => audit(client, claim, dead));
      await this.#proveThatAttemptsShow(queues[0] as EventQueue, attemptsBurned);
      await this.#crew.finishWorkers();
      return { accepted: claim.accepted, ...findings, deadLetters: dead.size, attemptsBurned };
    } finally {
      await Promise.all(queues.map((queue) => queue.close()));
    }
  }

  /** A count of 0 means something only where a failed attempt would have been counted. */
  async #proveThatAttemptsShow(queue: EventQueue, before: number): Promise<void> {
    const poison = { v: 1, events: [{ poison: true }] } as const;
    await queue.add('poison', { v: poison.v, events: [...poison.events] });
    for (let waited = 0; this.#crew.burnedAttempts() !== before + 1; waited += 50) {
      if (waited > 10_000)
        throw new Error('a failed attempt is not seen in the logs of the workers');
      await sleep(50);
    }
  }
}

async function drained(queues: EventQueue[]): Promise<void> {
  for (let waited = 0; waited < 120_000; waited += 100) {
    const counts = await Promise.all(
      queues.map((queue) => queue.getJobCounts('waiting', 'active', 'delayed', 'prioritized')),
    );
    if (counts.every((count) => Object.values(count).every((jobs) => jobs === 0))) return;
    await sleep(100);
  }
  throw new Error('the queues are not empty after 120 s');
}

/** Ids of the events in jobs that failed for good. */
async function deadLetters(queues: EventQueue[]): Promise<Set<string>> {
  const jobs = (await Promise.all(queues.map((queue) => queue.getFailed()))).flat();
  for (const { failedReason } of jobs) console.log(`dead letter: ${failedReason}`);
  return new Set(
    jobs.flatMap(({ data }) => data.events.map((event) => (event as { id: string }).id)),
  );
}

/** Runs a statement on a connection of its own, since the server comes and goes. */
class AuditClient {
  readonly #url: string;

  constructor(url: string) {
    this.#url = url;
  }

  async use<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
    const client = new pg.Client({ connectionString: this.#url });
    client.on('error', () => {}); // the query under way says it too
    await client.connect();
    try {
      return await work(client);
    } finally {
      await client.end();
    }
  }
}
