import { readRow, readRows, thousands, type Row } from './results.ts';

interface Column {
  title: string;
  cell: (row: Row) => string;
}

const name: Column = { title: '', cell: (row) => `\`${String(row['name'])}\`` };

const figure = (title: string, field: string): Column => ({
  title,
  cell: ({ [field]: value }) => (typeof value === 'number' ? thousands(value) : '–'),
});

const text = (title: string, field: string): Column => ({
  title,
  cell: ({ [field]: value }) => String(value),
});

const spread: Column = {
  title: 'slowest to fastest',
  cell: ({ spread: found }) => (found as number[] | null)?.map(thousands).join(' to ') ?? '–',
};

/** Each table of docs/performance.md, from the runs that are kept. */
const TABLES: Record<string, { rows: () => readonly Row[]; columns: Column[] }> = {
  ingest: {
    rows: () => readRows('ingest'),
    columns: [
      name,
      figure('events/s', 'eventsPerSecond'),
      spread,
      figure('CPU s per million', 'cpuSecondsPerMillion'),
      figure('of PostgreSQL', 'postgresCpuSecondsPerMillion'),
      figure('of Redis', 'redisCpuSecondsPerMillion'),
      figure('peak MB', 'peakRssMb'),
      figure('WAL bytes per event', 'walBytesPerEvent'),
    ],
  },
  emit: {
    rows: () => readRows('emit'),
    columns: [
      name,
      figure('p50 ns', 'p50Ns'),
      figure('p99 ns', 'p99Ns'),
      figure('p99.9 ns', 'p999Ns'),
    ],
  },
  'event loop': {
    rows: () => readRows('emit', 'eventLoop'),
    columns: [
      name,
      figure('events/s', 'eventsPerSecond'),
      figure('p50 ms', 'p50Ms'),
      figure('p99 ms', 'p99Ms'),
      figure('most ms', 'maxMs'),
    ],
  },
  latency: {
    rows: () => readRows('latency'),
    columns: [
      text('', 'name'),
      figure('samples', 'samples'),
      figure('p50 ms', 'p50Ms'),
      figure('p99 ms', 'p99Ms'),
      figure('most ms', 'maxMs'),
    ],
  },
  growth: {
    rows: () => readRows('growth'),
    columns: [
      text('rows before', 'name'),
      figure('MB before', 'megabytesBefore'),
      figure('events/s', 'eventsPerSecond'),
      spread,
      figure('CPU s per million', 'cpuSecondsPerMillion'),
      figure('of PostgreSQL', 'postgresCpuSecondsPerMillion'),
      figure('WAL bytes per event', 'walBytesPerEvent'),
    ],
  },
  scale: {
    rows: () => readRows('scale'),
    columns: [
      text('queues, worker processes', 'name'),
      figure('events/s', 'eventsPerSecond'),
      spread,
      figure('own % of all cores', 'ownCpuPercent'),
      figure('PostgreSQL %', 'postgresCpuPercent'),
      figure('Redis %', 'redisCpuPercent'),
    ],
  },
  cost: {
    rows: () => ['annals-redis', 'annals-postgres'].map(costOf),
    columns: [
      name,
      figure('own CPU µs', 'cpuSecondsPerMillion'),
      figure('PostgreSQL CPU µs', 'postgresCpuSecondsPerMillion'),
      figure('Redis CPU µs', 'redisCpuSecondsPerMillion'),
      figure('WAL bytes', 'walBytesPerEvent'),
      figure('bytes in the queue', 'queueBytesPerEvent'),
      figure("bytes of the queue's log", 'logBytesPerEvent'),
    ],
  },
  fleet: {
    rows: () => [10_000, 100_000, 1_000_000].map(fleetFor),
    columns: [
      figure('events/s', 'rate'),
      figure("cores for Annals' processes", 'own'),
      figure('for PostgreSQL', 'postgres'),
      figure('for Redis', 'redis'),
      figure('WAL MB/s', 'walMbPerSecond'),
      figure('Redis GB for ten minutes without PostgreSQL', 'queueGb'),
      figure('rows a day, in billions', 'billionsPerDay'),
    ],
  },
};

/** What an event costs, of one of our contestants. */
function costOf(contestant: string): Row {
  const { bytesPerEvent: queueBytesPerEvent, logBytesPerEvent } = readRow(
    'ingest',
    contestant,
    'backlog',
  );
  return { ...readRow('ingest', contestant), queueBytesPerEvent, logBytesPerEvent };
}

/** What so many events a second need, at the cost of one on Redis. */
function fleetFor(rate: number): Row {
  const cost = costOf('annals-redis') as Record<string, number>;
  const upTo = (value: number) => Number(value.toPrecision(2));
  const times = (field: string, unit: number) => upTo(((cost[field] ?? NaN) * rate) / unit);
  return {
    rate,
    own: times('cpuSecondsPerMillion', 1e6),
    postgres: times('postgresCpuSecondsPerMillion', 1e6),
    redis: times('redisCpuSecondsPerMillion', 1e6),
    walMbPerSecond: times('walBytesPerEvent', 1e6),
    queueGb: times('queueBytesPerEvent', 1e9 / 600),
    billionsPerDay: upTo((rate * 86_400) / 1e9),
  };
}

export const TABLE_NAMES = Object.keys(TABLES);

function render({ rows, columns }: (typeof TABLES)[string]): string {
  const lines = [
    columns.map(({ title }) => title),
    columns.map((_, index) => (index === 0 ? '---' : '--:')),
    ...rows().map((row) => columns.map(({ cell }) => cell(row))),
  ];
  return lines.map((cells) => `| ${cells.join(' | ')} |`.replace('|  |', '| |')).join('\n');
}

/** The page with its tables made anew, between `<!-- table: NAME -->` and `<!-- /table -->`. */
export const withTables = (page: string): string =>
  page.replaceAll(
    /(<!-- table: ([a-z ]+) -->\n)[\s\S]*?(<!-- \/table -->)/g,
    (_, begin: string, which: string, end: string) => {
      const table = TABLES[which];
      if (!table) throw new Error(`there is no table ${which}`);
      return `${begin}\n${render(table)}\n\n${end}`;
    },
  );
