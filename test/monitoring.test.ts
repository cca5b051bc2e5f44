import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { parser } from '@prometheus-io/lezer-promql';
import { Histogram, Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { parse } from 'yaml';

import { openPool } from '../src/backfill/database.ts';
import { start } from '../src/backfill/runs.ts';
import { transformOf } from '../src/backfill/transforms/index.ts';
import { startBoard, type Board } from '../src/board/board.ts';
import { createLogger } from '../src/logger.ts';
import { ManyHistogram } from '../src/metrics/manyHistogram.ts';
import { startReporter, type Reporter } from '../src/metrics/reports.ts';
import { createWorkerMetrics } from '../src/metrics/workerMetrics.ts';
import { recountSessions } from '../src/services/sessionCounts.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { testConfig } from './support/pipeline.ts';
import { ROOT } from './support/process.ts';

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');

interface Alert {
  alert: string;
  expr: string;
  labels: { severity: string };
  annotations: { summary: string; runbook: string };
}

interface Panel {
  id: number;
  title: string;
  gridPos: Record<'x' | 'y' | 'w' | 'h', number>;
  targets?: { expr: string }[];
}

const alerts = (
  parse(read('monitoring/alerts.yml')) as { groups: { rules: Alert[] }[] }
).groups.flatMap(({ rules }) => rules);
const { panels, uid } = JSON.parse(read('monitoring/grafana/dashboards/annals.json')) as {
  panels: Panel[];
  uid: string;
};
const queries = [
  ...alerts.map(({ alert, expr }) => [alert, expr] as const),
  ...panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => [title, expr] as const)),
];

/** What Prometheus itself says of each target. */
const OF_PROMETHEUS = ['up'];

/** What a query asks for: names, the labels that it names, and those that it wants to be something. */
function asksFor(query: string) {
  const found = { errors: 0, metrics: [] as string[], labels: [] as string[] };
  const wanted: { metric: string; label: string; operator: string; value: string }[] = [];
  const tree = parser.parse(query);
  tree.iterate({
    enter: ({ name, type, node, from, to }) => {
      const text = query.slice(from, to);
      if (type.isError) found.errors++;
      if (name === 'LabelName') found.labels.push(text);
      if (name !== 'VectorSelector') return;
      const id = node.getChild('Identifier');
      const metric = id ? query.slice(id.from, id.to) : '';
      found.metrics.push(metric);
      for (const [, label = '', operator = '', value = ''] of text.matchAll(
        /(\w+)\s*(=~|=)\s*"([^"]*)"/g,
      )) {
        wanted.push({ metric, label, operator, value });
      }
    },
  });
  return { ...found, wanted };
}

describe('dashboard and alert rules', () => {
  let db: TestDatabase;
  let board: Board;
  let reporter: Reporter;
  let exposed: string;

  beforeAll(async () => {
    db = await createTestDatabase();
    const queue = { kind: 'postgres', url: db.url, prefix: 'annals' } as const;
    const config = testConfig({ ANNALS_BOARD_PORT: '0' });
    const log = createLogger(config);
    const { hooks, snapshot } = createWorkerMetrics('worker:1');
    hooks.onBatch?.('metrics', { rows: 1, jobs: 1, milliseconds: 1, occurredAt: [Date.now()] });
    hooks.onDeadLetter?.('metrics', { unreadable: 1 });
    reporter = startReporter({ databaseUrl: db.url, worker: 'worker:1', snapshot, log });
    board = await startBoard({ databaseUrl: db.url, queue, config, log });
    await recountSessions(db.prisma);
    // A backfill that is under way, and held.
    const pool = openPool(db.url, 1);
    await start(pool, transformOf('agents'), {});
    await pool.end();
    await db.sql(`UPDATE "BackfillRun" SET "reason" = 'held: replication lags'`);
    await vi.waitFor(
      async () => {
        exposed = await (await fetch(`${board.url}/metrics`)).text();
        for (const part of [
          'annals_session_counts_',
          'annals_queue_jobs{',
          'annals_backfill_held{',
        ]) {
          expect(exposed).toContain(part);
        }
        expect(exposed).toContain('annals_lag_seconds_bucket');
      },
      { timeout: 30_000, interval: 200 },
    );
  }, 60_000);
  afterAll(async () => {
    await board?.stop(5000);
    await reporter?.stop();
    await db?.drop();
  });

  it.each(queries)('%s asks for what /metrics has: %s', (_, query) => {
    const { errors, metrics, labels, wanted } = asksFor(query);
    expect(errors).toBe(0);
    expect(metrics.length).toBeGreaterThan(0);
    const types = new Map(
      Array.from(exposed.matchAll(/^# TYPE (\S+) (\S+)$/gm), ([, name = '', type]) => [name, type]),
    );
    for (const metric of metrics.filter((name) => !OF_PROMETHEUS.includes(name))) {
      const family = types.has(metric) ? metric : metric.replace(/_(bucket|sum|count)$/, '');
      expect([...types.keys()]).toContain(family);
      if (family !== metric) expect(types.get(family)).toBe('histogram');
      const samples = exposed.split('\n').filter((line) => line.split(/[{ ]/, 1)[0] === metric);
      expect(samples, metric).not.toEqual([]);
      if (metrics.every((each) => each === metric)) {
        for (const label of labels) expect(samples[0]).toContain(`${label}="`);
      }
      for (const { label, value } of wanted.filter((each) => each.metric === metric)) {
        for (const one of value.split('|')) {
          expect(
            samples.some((line) => line.includes(`${label}="${one}"`)),
            one,
          ).toBe(true);
        }
      }
      // A counter is of use as a rate alone.
      if (types.get(family) === 'counter') expect(query).toMatch(/\b(rate|increase)\(/);
    }
  });

  it('every figure of /metrics is in an alert or on the dashboard', () => {
    const asked = new Set(queries.flatMap(([, query]) => asksFor(query).metrics));
    const families = Array.from(exposed.matchAll(/^# TYPE (\S+)/gm), ([, name = '']) => name);
    const unused = families.filter(
      (name) => !['', '_bucket', '_sum', '_count'].some((end) => asked.has(`${name}${end}`)),
    );
    expect(unused).toEqual(['annals_session_counts_checked_agents']);
  });

  it('every alert has a runbook in docs/operations.md, and every runbook an alert', () => {
    const headings = Array.from(
      read('docs/operations.md').matchAll(/^### (Annals\w+)\n\n(?!#)\S/gm),
      ([, name]) => name,
    );
    expect(headings).toEqual(alerts.map(({ alert }) => alert));
    for (const { alert, labels, annotations } of alerts) {
      expect(annotations.runbook).toBe(`docs/operations.md#${alert.toLowerCase()}`);
      expect(annotations.summary).not.toBe('');
      expect(['page', 'ticket']).toContain(labels.severity);
    }
  });

  it('panels have ids of their own and do not overlap', () => {
    expect(uid).toBe('annals');
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    const taken = new Set<string>();
    for (const { title, gridPos } of panels) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.has(`${x},${y}`), title).toBe(false);
          taken.add(`${x},${y}`);
        }
      }
    }
  });
});

describe('provisioning', () => {
  const compose = parse(read('docker-compose.yml'), { merge: true }) as {
    services: Record<string, { command?: string[]; environment?: Record<string, string> }>;
  };

  it('Prometheus reads the board by its name, port and user, and the rules beside it', () => {
    const { rule_files, scrape_configs } = parse(read('monitoring/prometheus.yml')) as {
      rule_files: string[];
      scrape_configs: {
        job_name: string;
        static_configs: { targets: string[] }[];
        basic_auth: { username: string; password_file: string };
      }[];
    };
    const [job] = scrape_configs;
    const port = compose.services['board']?.environment?.['ANNALS_BOARD_PORT'];
    expect(rule_files).toEqual(['alerts.yml']);
    expect(job?.static_configs).toEqual([{ targets: [`board:${port}`] }]);
    expect(job?.basic_auth.username).toBe(testConfig().ANNALS_BOARD_USER);
    expect(JSON.stringify(compose.services['prometheus'])).toContain(
      `> ${job?.basic_auth.password_file};`,
    );
    expect(job?.job_name).toBe('annals');
  });

  it('Grafana finds Prometheus, and the dashboard where it is mounted', () => {
    const folder = 'monitoring/grafana/provisioning';
    const { datasources } = parse(read(`${folder}/datasources/prometheus.yml`)) as {
      datasources: { url: string; type: string }[];
    };
    expect(datasources).toMatchObject([{ url: 'http://prometheus:9090', type: 'prometheus' }]);
    const { providers } = parse(read(`${folder}/dashboards/annals.yml`)) as {
      providers: { options: { path: string } }[];
    };
    const path = providers[0]?.options.path;
    expect(JSON.stringify(compose.services['grafana'])).toContain(
      `./monitoring/grafana/dashboards:${path}:ro`,
    );
  });
});

it('lag is told as by the histogram of prom-client', async () => {
  const buckets = [0.1, 1, 10];
  const values = [0, 0.1, 0.11, 1, 9.5, 10, 11, 1e6];
  const settings = { name: 'annals_test_seconds', help: 'Seconds', buckets };
  const [own, theirs] = [new Registry(), new Registry()];
  const many = new ManyHistogram({ ...settings, registry: own });
  const histogram = new Histogram({ ...settings, labelNames: ['kind'], registers: [theirs] });
  for (const kind of ['metrics', 'transition']) {
    many.observe(kind, values);
    many.observe(kind, values.slice(3));
    for (const value of [...values, ...values.slice(3)]) histogram.observe({ kind }, value);
  }
  for (const registry of [own, theirs]) registry.setDefaultLabels({ worker: 'w' });
  // Theirs has room for exemplars as well, which are not used.
  const plain = async (registry: Registry) =>
    JSON.parse(
      JSON.stringify(await registry.getMetricsAsJSON(), (name, value: unknown) =>
        name === 'exemplar' ? undefined : value,
      ),
    ) as unknown;
  expect(await plain(own)).toEqual(await plain(theirs));
});
