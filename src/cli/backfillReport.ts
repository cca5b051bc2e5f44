import type { RunStatus } from '../backfill/status.ts';
import type { DryRun, Verification } from '../backfill/verify.ts';
import { duration } from './progress.ts';
import { table } from './table.ts';

// What people are told of backfills. Tables stay within the 80 columns of a plain terminal.

const STATUS: Record<Exclude<RunStatus['status'], 'running'>, string> = {
  paused: 'paused',
  cancelled: 'cancelled',
  completed: 'completed',
  completed_with_errors: 'with errors',
  failed: 'failed',
  rolled_back: 'rolled back',
};

export function summary(runs: readonly RunStatus[]): string {
  if (runs.length === 0) return 'No backfill has been started.';
  const isAnyUnderWay = runs.some(({ etaMs }) => etaMs !== null);
  const rows = runs.map((run) => [
    run.table,
    run.status === 'running'
      ? `${run.phase} ${(100 * run.fraction).toFixed(1)}%`
      : STATUS[run.status],
    run.rows,
    run.changed,
    duration(run.elapsedMs),
    ...(isAnyUnderWay ? [run.etaMs === null ? '' : duration(run.etaMs)] : []),
  ]);
  const head = ['table', 'status', 'rows', 'changed', 'took', ...(isAnyUnderWay ? ['left'] : [])];
  return [table(head, rows), ...runs.flatMap(adviceOn)].join('\n');
}

function adviceOn(run: RunStatus): string[] {
  const { table, status, quarantined, reason, refused, isUnattended } = run;
  const again = `npx annals backfill retry ${table}`;
  if (status === 'failed') return [`${table}: ${reason}`, `  Mend it, then: ${again}`];
  const advice: string[] = [];
  if (reason !== null) advice.push(`${table}: ${reason}`);
  if (quarantined > 0) {
    const more = quarantined - refused.length;
    advice.push(
      `${table}: ${count(quarantined, 'row')} in quarantine`,
      ...refused.map(({ id, reason: why }) => `  ${shown(id)}: ${why}`),
      ...(more > 0 ? [`  and ${count(more, 'row')} more, in the table "BackfillQuarantine"`] : []),
      `  Mend the cause, then: ${again}`,
    );
  }
  if (isUnattended) {
    advice.push(
      `${table}: nobody is working on it; run: npx annals worker, or: npx annals backfill ${forward(run)}`,
    );
  }
  if (status === 'paused') advice.push(`${table}: goes on with: npx annals backfill resume`);
  if (status === 'cancelled')
    advice.push(`${table}: goes on with: npx annals backfill ${forward(run)}`);
  return advice;
}

const forward = ({ phase }: RunStatus) => (phase === 'undo' ? 'rollback' : 'start');

/** What came of it, for tables that were worked on to the end. */
export function outcome(runs: readonly RunStatus[]): string {
  const all = (status: RunStatus['status']) => runs.every((run) => run.status === status);
  const last = all('completed')
    ? 'Completed: nothing remaining, nothing differing.'
    : all('rolled_back')
      ? 'Rolled back: nothing is left of what backfills wrote.'
      : 'Not all is done; see above.';
  return `${summary(runs)}\n${last}`;
}

export function verification(found: readonly Verification[]): string {
  const sum = (of: (each: Verification) => number) =>
    found.reduce((total, each) => total + of(each), 0);
  const remaining = sum((each) => each.remaining);
  const differing = sum((each) => each.differing);
  const quarantined = sum((each) => each.quarantined);
  const lines = [
    table(
      ['table', 'remaining', 'differing', 'in quarantine'],
      found.map((each) => [each.table, each.remaining, each.differing, each.quarantined]),
    ),
  ];
  if (remaining > 0) {
    lines.push(
      `${count(remaining, 'row')} not filled in: plain rows, that came before or since the last backfill.`,
      'Fill them in with: npx annals backfill start',
    );
  }
  if (differing > 0) {
    lines.push(
      `${count(differing, 'row')} differing: what their values were made from was changed since.`,
      'Make them anew with: npx annals backfill start',
    );
  }
  if (quarantined > 0) {
    lines.push(
      `${count(quarantined, 'row')} set apart; "BackfillQuarantine" says why. Mend the cause, then:`,
      'npx annals backfill retry',
    );
  }
  if (remaining + differing + quarantined === 0) lines.push('Every row holds what it should hold.');
  return lines.join('\n');
}

export function dryRuns(found: readonly DryRun[]): string {
  const lines = found.flatMap((each) => [
    `${each.table}: ${each.needing.toLocaleString('en')} of ${each.sampled.toLocaleString('en')} sampled rows need work.`,
    `  All ${each.rows.toLocaleString('en')} take about ${duration(each.estimateMs)} in one lane.`,
    ...each.refused.map(({ id, reason }) => `  ${shown(id)} would be set apart: ${reason}`),
    ...each.examples.flatMap(({ before, after }) => [
      `  ${shown(before['id'])}`,
      ...Object.keys(after)
        .filter((name) => shown(before[name]) !== shown(after[name]))
        .map((name) => `    ${name}: ${shown(before[name])} → ${shown(after[name])}`),
    ]),
  ]);
  return [...lines, 'Nothing was changed.'].join('\n');
}

/** In a line of a terminal, whatever the value holds. */
function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'null';
  return text.length <= 44 ? text : `${text.slice(0, 43)}…`;
}

const count = (n: number, what: string) => `${n.toLocaleString('en')} ${what}${n === 1 ? '' : 's'}`;
