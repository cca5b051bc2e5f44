import { writeFile } from 'node:fs/promises';
import { basename } from 'node:path';

import { UsageError } from '../../errors.ts';
import type { Naming } from '../../replay/records.ts';
import { replay, type ReplayFigures, type ReplayReport } from '../../replay/replay.ts';
import { inEnvironment } from '../environment.ts';
import { openFile } from '../file.ts';
import type { ReplayCommandOptions } from '../replay.ts';
import { ensureSchema } from '../schema.ts';
import { table } from '../table.ts';

export async function replayFile(file: string, options: ReplayCommandOptions): Promise<void> {
  const naming = namingOf(file, options);
  (await openFile(file)).destroy();

  await inEnvironment({ ...options, needs: 'all' }, async (environment) => {
    const { log, result, say } = environment;
    await ensureSchema(environment);
    const report = await replay({
      ...environment,
      file,
      naming,
      signal: environment.stopping,
      ...(process.stderr.isTTY && { onProgress: drawProgress }),
    });
    if (process.stderr.isTTY) process.stderr.write('\n');

    for (const reason of report.deadLetterReasons) log.error({ reason }, 'dead letters');
    if (report.callsWithoutMemory > 0) {
      say(`${report.callsWithoutMemory} look-ups do not say of what; they have no memory access`);
    }
    if (options.report) await writeFile(options.report, `${JSON.stringify(report, null, 2)}\n`);
    result(report, describe(report));
    return report.ok ? 0 : 1;
  });
}

/** `airline-gpt-4o.ndjson` holds sessions `airline-…` of the agent `gpt-4o-airline`. */
function namingOf(file: string, options: ReplayCommandOptions): Naming {
  const stem = basename(file).replace(/\.(ndjson|jsonl|json)$/i, '');
  const dash = stem.indexOf('-');
  const source = options.name ?? (dash > 0 ? stem.slice(0, dash) : stem);
  const agentId =
    options.agent ?? (dash > 0 ? `${stem.slice(dash + 1)}-${source}` : `${source}-agent`);
  const startAt = new Date(options.start);
  const faults = [
    ...(isName(source) ? [] : ['--name: takes 1 to 100 characters without white space']),
    ...(isName(agentId) ? [] : ['--agent: takes 1 to 100 characters without white space']),
    ...(Number.isNaN(startAt.getTime())
      ? [`--start: got ${options.start}; takes a time such as 2024-05-15T15:00:00Z`]
      : []),
  ];
  if (faults.length > 0) throw new UsageError(faults.join('; '));
  return { source, agentId, startAt };
}

const isName = (text: string) => /^[^\s\p{Cc}]{1,100}$/u.test(text);

function drawProgress(stored: number, total: number): void {
  process.stderr.write(
    `\r${stored.toLocaleString('en')} of ${total.toLocaleString('en')} events stored`,
  );
}

function describe(report: ReplayReport): string {
  const expected = new Map(rowsOf(report.expected));
  const rows = rowsOf(report).map(([name, stored]) => [name, stored, expected.get(name) ?? 0]);
  const outcome = report.ok
    ? 'Everything is stored.'
    : `Not everything is stored: ${report.deadLetters} events are dead letters, ${report.missing} are missing.`;
  return `${table(['', 'stored', 'expected'], rows)}\n${outcome}`;
}

function rowsOf(figures: ReplayFigures): [string, number][] {
  const below = (counts: Record<string, number>) =>
    Object.entries(counts)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, count]): [string, number] => [`  ${name}`, count]);
  return [
    ['parent sessions', figures.sessions.parents],
    ['child sessions', figures.sessions.children],
    ['session events', figures.sessionEvents],
    ...below(figures.eventTypes),
    ['memory accesses', figures.memoryAccesses],
    ['memories', figures.memories],
    ['state transitions', figures.stateTransitions],
    ...below(figures.transitionsByTool),
    ['module states', figures.moduleStates],
    ['session metrics', figures.sessionMetrics],
    ...below(figures.metricSums).map(([name, sum]): [string, number] => [`${name} (sum)`, sum]),
    ['users', figures.users],
    ['agents', figures.agents],
    ["agent's totalSessions", figures.totalSessions],
  ];
}
