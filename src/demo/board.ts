import { setTimeout as sleep } from 'node:timers/promises';

import { startBoard, type Board } from '../board/board.ts';
import type { Closer } from '../closer.ts';
import { loadConfig } from '../config.ts';
import type { LedgerFigure } from '../ledger/ledger.ts';
import { readTotals } from '../ledger/totals.ts';
import { createLogger } from '../logger.ts';
import type { EventQueue } from '../queues/backend.ts';
import { EVENT_KINDS, type EventKind } from '../queues/catalogue.ts';
import { check, countRows, type Check, type Query } from './audit.ts';
import type { Ground } from './ground.ts';
import type { EventTable } from './ledger.ts';

/** The rows of each kind. */
const TABLES: Readonly<Record<EventKind, readonly EventTable[]>> = {
  'memory-access': ['MemoryAccess'],
  transition: ['StateTransition'],
  metrics: ['SessionMetric', 'AgentMetric'],
  'session-event': ['SessionEvent'],
};

/** Milliseconds in which the board tells what was committed last; dead letters it reads each 10 s. */
const TOLD_WITHIN_MS = 15_000;

/** Starts a board that shows the demo while it runs. */
export async function openBoard(ground: Ground, closer: Closer): Promise<Board> {
  const config = loadConfig(ground.env);
  const { databaseUrl, queue } = ground;
  const board = await startBoard({ databaseUrl, queue, config, log: createLogger(config) });
  closer.add('board', () => board.stop(5000));
  return board;
}

/**
 * Holds the figures of /metrics against what is counted elsewhere: rows and the ledger, in the
 * database, and dead letters, in the queues.
 */
export async function checkBoard(
  board: Board,
  query: Query,
  queues: Readonly<Record<EventKind, EventQueue>>,
): Promise<Check[]> {
  const expected: Expected[] = [];
  for (const kind of EVENT_KINDS) {
    const rows = await Promise.all(TABLES[kind].map((table) => countRows(query, table)));
    expected.push(total('committed', kind, add(rows)));
  }
  const totals = await readTotals({ query: async (sql) => ({ rows: await query(sql) }) });
  for (const figure of ['accepted', 'duplicates', 'dropped'] as const) {
    for (const kind of EVENT_KINDS) expected.push(total(figure, kind, totals[kind][figure]));
  }
  for (const kind of EVENT_KINDS) {
    const events = (await queues[kind].getFailed()).map(({ data }) => data.events.length);
    const series = `annals_dead_letter_events{queue="${kind}"}`;
    expected.push([`dead letters, ${kind}`, series, add(events)]);
  }
  for (let waited = 0; ; waited += 100) {
    const text = await (await fetch(`${board.url}/metrics`)).text();
    const checks = expected.map(([name, series, count]) =>
      check(`/metrics ${name}`, count, read(text, series)),
    );
    if (checks.every(({ ok }) => ok) || waited >= TOLD_WITHIN_MS) return checks;
    await sleep(100);
  }
}

/** A figure's name for people, its series in /metrics, and what it should be. */
type Expected = [name: string, series: string, count: number];

const total = (figure: LedgerFigure, kind: EventKind, count: number): Expected => [
  `${figure}, ${kind}`,
  `annals_events_${figure}_total{kind="${kind}"}`,
  count,
];

const add = (counts: readonly number[]) => counts.reduce((sum, count) => sum + count, 0);

function read(metrics: string, series: string): number {
  const line = metrics.split('\n').find((one) => one.startsWith(`${series} `));
  return Number(line?.slice(series.length) ?? NaN);
}
