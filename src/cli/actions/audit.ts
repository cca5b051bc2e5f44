import type { Account, Balance } from '../../audit/accounts.ts';
import { audit, type AuditReport } from '../../audit/audit.ts';
import { createPrismaClient } from '../../database/client.ts';
import { UsageError } from '../../errors.ts';
import { configuredSpoolFolder, spoolFolder } from '../../producers/spool/destination.ts';
import { straySpools } from '../../producers/spool/strays.ts';
import { EVENT_KINDS } from '../../queues/catalogue.ts';
import { openEventQueues } from '../../queues/eventQueues.ts';
import type { AuditOptions } from '../audit.ts';
import { createCounter } from '../counter.ts';
import { inEnvironment } from '../environment.ts';
import { ensureSchema } from '../schema.ts';
import { table } from '../table.ts';

export async function showAudit(options: AuditOptions): Promise<void> {
  const waitSeconds = Number(options.wait);
  if (options.wait === '' || !(waitSeconds >= 0 && waitSeconds <= 3600)) {
    throw new UsageError(`--wait: got ${options.wait}; takes seconds, from 0 to 3600`);
  }
  await inEnvironment({ ...options, needs: 'all' }, async (environment) => {
    const { closer, config, databaseUrl, log, queue, result, stopping } = environment;
    await ensureSchema(environment);
    const prisma = createPrismaClient(databaseUrl, { poolSize: 1 });
    closer.add('database', () => prisma.$disconnect());
    const queues = await openEventQueues(queue, closer);
    const counter = createCounter('jobs read');
    const report = await audit({
      prisma,
      queues,
      // A producer may have been given its queues, or have found them by the configuration.
      spools: new Set([configuredSpoolFolder(config), spoolFolder(config, queue)]),
      patienceMs: waitSeconds * 1000,
      signal: stopping,
      onJob: () => counter.add(1),
    });
    counter.end();
    for (const stray of await straySpools(config, queue)) {
      log.warn(stray, 'events are left in the spool for other queues, and are not counted here');
    }
    result(report, describe(report, waitSeconds));
    return report.ok ? 0 : 1;
  });
}

const ROWS: [name: string, figure: keyof (Account & Balance)][] = [
  ['accepted', 'accepted'],
  ['committed', 'committed'],
  ['repeated', 'repeated'],
  ['dead letters', 'deadLetters'],
  ['discarded', 'discarded'],
  ['dropped', 'dropped'],
  ['queued', 'queued'],
  ['spooled', 'spooled'],
  ['not found', 'unaccounted'],
];

function describe({ ok, missing, kinds, elsewhere }: AuditReport, waitSeconds: number): string {
  const sum = (figure: keyof (Account & Balance)) =>
    EVENT_KINDS.reduce((total, kind) => total + kinds[kind][figure], 0);
  const rows = ROWS.map(([name, figure]) => [
    name,
    ...EVENT_KINDS.map((kind) => kinds[kind][figure]),
    sum(figure),
  ]);
  const count = (events: number, one: string, many: string) =>
    `${events.toLocaleString('en')} ${events === 1 ? one : many}`;
  const notes: [events: number, note: (events: number) => string][] = [
    [
      sum('copies'),
      (n) => `${count(n, 'copy was', 'copies were')} delivered more than once, and ignored.`,
    ],
    [
      sum('seenTwice'),
      (n) =>
        `${count(n, 'event was', 'events were')} seen in two places, such as spool and queue, and ${n === 1 ? 'counts' : 'count'} once.`,
    ],
    [
      total(elsewhere),
      (n) =>
        `${count(n, 'event', 'events')} besides, of producers that do not say what they accepted: ${elsewhere.committed.toLocaleString('en')} committed, ${elsewhere.deadLetters.toLocaleString('en')} dead letters, ${elsewhere.discarded.toLocaleString('en')} discarded, ${elsewhere.queued.toLocaleString('en')} queued.`,
    ],
    [
      ok ? sum('unaccounted') : 0,
      (n) => `${count(n, 'event is', 'events are')} on the way, accepted since the audit began.`,
    ],
  ];
  return [
    table(['', ...EVENT_KINDS, 'total'], rows),
    ...notes.filter(([events]) => events > 0).map(([events, note]) => note(events)),
    ok
      ? 'Every event is accounted for.'
      : `${count(missing, 'event is', 'events are')} missing: accepted more than ${waitSeconds} s ago, and nowhere to be found.`,
  ].join('\n');
}

const total = ({ committed, deadLetters, discarded, queued, spooled }: Account) =>
  committed + deadLetters + discarded + queued + spooled;
