import { setTimeout as sleep } from 'node:timers/promises';

import { startBoard, type Board } from '../board/board.ts';
import type { Closer } from '../closer.ts';
import { loadConfig } from '../config.ts';
import type { LedgerFigure } from '../ledger/ledger.ts';
import { readTotals } from '../ledger/totals.ts';
import { createLogger } from '../logger.ts';
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

/** Milliseconds in which the board tells what was committed last. */
const TOLD_WITHIN_MS = 10_000;

/** Starts a board that shows the demo while it runs. */
export async function openBoard(ground: Ground, closer: Closer): Promise<Board> {
  const config = loadConfig(ground.env);
  const { databaseUrl, queue } = ground;
  const board = await startBoard({ databaseUrl, queue, config, log: createLogger(config) });
  closer.add('board', () => board.stop(5000));
  return board;
}

/** Holds the totals of /metrics against what is counted in the database: rows, and the ledger. */
export async function checkBoard(board: Board, query: Query): Promise<Check[]> {
  const expected: [LedgerFigure, EventKind, number][] = [];
  for (const kind of EVENT_KINDS) {
    const rows = await Promise.all(TABLES[kind].map((table) => countRows(query, table)));
    expected.push(['committed', kind, rows.reduce((sum, count) => sum + count, 0)]);
  }
  const totals = await readTotals({ query: async (sql) => ({ rows: await query(sql) }) });
  for (const figure of ['accepted', 'duplicates', 'dropped'] as const) {
    for (const kind of EVENT_KINDS) expected.push([figure, kind, totals[kind][figure]]);
  }
  for (let waited = 0; ; waited += 100) {
    const text = await (await fetch(`${board.url}/metrics`)).text();
    const checks = expected.map(([figure, kind, count]) =>
      check(`/metrics ${figure}, ${kind}`, count, read(text, figure, kind)),
    );
    if (checks.every(({ ok }) => ok) || waited >= TOLD_WITHIN_MS) return checks;
    await sleep(100);
  }
}

function read(metrics: string, figure: LedgerFigure, kind: EventKind): number {
  const line = new RegExp(`^annals_events_${figure}_total\\{kind="${kind}"\\} (\\d+)$`, 'm');
  return Number(line.exec(metrics)?.[1] ?? NaN);
}
