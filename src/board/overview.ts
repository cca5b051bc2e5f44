import type { LedgerFigure } from '../ledger/ledger.ts';
import type { Totals } from '../ledger/totals.ts';
import { LONGEST } from '../metrics/workerMetrics.ts';
import type { Point } from './history.ts';
import { bytes, duration, durationUpTo, html, number, type Html } from './html.ts';
import type { Checks, Sight } from './watch.ts';
import { countWorkers } from './workers.ts';

/** Parts of the overview, by the id of the element that each fills. */
export type Sections = Record<
  'status' | 'tiles' | 'queues' | 'letters' | 'recount' | 'backfills',
  Html
>;

/** @param point - the latest of the history, if there is one */
export function renderSections(sight: Sight, point: Point | undefined): Sections {
  return {
    status: status(sight),
    tiles: tiles(sight, point),
    queues: queues(sight),
    letters: letters(sight),
    recount: recount(sight),
    backfills: backfills(sight),
  };
}

/** Reasons of dead letters that the page lists; few are different, values left out. */
const SHOWN_REASONS = 50;

const PARTS: Record<keyof Checks, string> = {
  database: 'PostgreSQL',
  queue: 'Queues',
  migrations: 'Migrations',
  commits: 'Commits',
};

function status({ checks }: Sight): Html {
  const faults = Object.entries(checks).flatMap(([part, fault]: [string, string | null]) =>
    fault === null ? [] : [html`<li><b>${PARTS[part as keyof Checks]}</b>: ${fault}</li>`],
  );
  if (faults.length === 0) return html`<p class="good">All is well</p>`;
  return html`<ul class="bad">
    ${faults}
  </ul>`;
}

function tiles(sight: Sight, point: Point | undefined): Html {
  const { queues, spoolBytes } = sight;
  const rate = point ? Object.values(point.rate).reduce((total, n) => total + n, 0) : null;
  const backlog = queues.reduce((total, { waiting, active }) => total + waiting + active, 0);
  const oldest = Math.max(-1, ...queues.map(({ oldestMs }) => oldestMs ?? -1));
  const dead = queues.reduce((total, { deadLetters }) => total + deadLetters, 0);
  const workers = countWorkers(sight);
  return html` ${tile('Committed', `${number(rate && Math.round(rate))} /s`, 'events')}
  ${tile('Lag', lag(point?.lagMost), `for 95 %, ${lag(point?.lagHalf)} for half`)}
  ${tile('Backlog', number(backlog), oldest < 0 ? 'jobs' : `jobs, oldest ${duration(oldest / 1000)}`)}
  ${tile('Dead letters', number(dead), dead === 1 ? 'job' : 'jobs', dead > 0 ? 'warn' : '')}
  ${tile('Batch', number(point?.batch ?? null), `events, ${durationUpTo(LONGEST.write, point?.writeMost ?? null)} a write`)}
  ${tile('Spool', bytes(spoolBytes), 'on this machine', spoolBytes > 0 ? 'warn' : '')}
  ${tile('Workers', number(workers), 'reporting', workers === 0 ? 'warn' : '')}`;
}

const lag = (seconds: number | null | undefined) => durationUpTo(LONGEST.lag, seconds ?? null);

function tile(title: string, value: string, about: string, look = ''): Html {
  return html`<div class="tile ${look}">
    <h3>${title}</h3>
    <b>${value}</b><span>${about}</span>
  </div>`;
}

function queues({ queues, totals }: Sight): Html {
  const ofKind: Readonly<Record<string, Totals[keyof Totals]>> = totals ?? {};
  const total = (queue: string, figure: LedgerFigure) => {
    const figures = ofKind[queue]; // queues of tasks have none
    return figures ? number(figures[figure]) : '';
  };
  const rows = queues.map(
    (queue) =>
      html`<tr>
        <th scope="row">
          <a href="/queues/queue/${queue.name}">${queue.name}</a>${
            queue.isPaused ? html` <em>paused</em>` : ''
          }
        </th>
        <td>${number(queue.waiting)}</td>
        <td>${number(queue.active)}</td>
        <td>${number(queue.delayed)}</td>
        <td class="${queue.deadLetters > 0 ? 'warn' : ''}">${number(queue.deadLetters)}</td>
        <td>${duration(queue.oldestMs === null ? null : queue.oldestMs / 1000)}</td>
        <td>${total(queue.name, 'committed')}</td>
        <td>${total(queue.name, 'duplicates')}</td>
      </tr>`,
  );
  return html`<table>
    <thead>
      <tr>
        <th scope="col">Queue</th>
        <th scope="col">Waiting</th>
        <th scope="col">Active</th>
        <th scope="col">Delayed</th>
        <th scope="col">Dead</th>
        <th scope="col">Oldest</th>
        <th scope="col">Committed</th>
        <th scope="col">Duplicates</th>
      </tr>
    </thead>
    <tbody>
      ${rows}
    </tbody>
  </table>`;
}

function letters({ deadLetters: { groups, unread } }: Sight): Html {
  if (groups.length + unread === 0) return html`<p>None.</p>`;
  const rows = groups.slice(0, SHOWN_REASONS).map(
    ({ queue, reason, count }) =>
      html`<tr>
        <td>${number(count)}</td>
        <td class="text"><a href="/queues/queue/${queue}?status=failed">${queue}</a></td>
        <td class="text">${reason}</td>
      </tr>`,
  );
  const more = groups.length - rows.length;
  return html`<table>
      <thead>
        <tr>
          <th scope="col">Events</th>
          <th scope="col" class="text">Queue</th>
          <th scope="col" class="text">Reason</th>
        </tr>
      </thead>
      <tbody>
        ${rows}
      </tbody>
    </table>
    ${more > 0 ? html`<p class="note">And ${number(more)} reasons more.</p>` : ''}
    ${unread > 0 ? html`<p class="note">${number(unread)} jobs are still to be read.</p>` : ''}`;
}

/** The last check of the agents' session counts, scheduled or by hand. */
function recount({ recount: last, at }: Sight): Html {
  if (!last) return html`<p>None has run.</p>`;
  const found =
    last.agents === 0
      ? 'none was wrong'
      : `${number(last.agents)} ${last.agents === 1 ? 'was' : 'were'} wrong, by ${number(last.drift)} sessions in all, and healed`;
  const ago = duration(Math.max(0, at - last.finishedAt) / 1000);
  return html`<p class="${last.agents > 0 ? 'warn' : ''}">
    ${number(last.checked)} ${last.checked === 1 ? 'agent' : 'agents'} checked ${ago} ago in
    ${duration(last.tookMs / 1000)}: ${found}.
  </p>`;
}

function backfills({ backfills }: Sight): Html {
  if (backfills.length === 0) return html`<p>None has run.</p>`;
  const rows = backfills.map(({ table, status, phase, fraction, reason, ...run }) => {
    const percent = Math.floor(fraction * 100);
    const left = run.isUnattended
      ? ' · nobody is working on it'
      : run.etaMs === null
        ? ''
        : ` · ${duration(run.etaMs / 1000)} left`;
    const bad = run.quarantined > 0 ? ` · ${number(run.quarantined)} in quarantine` : '';
    return html`<tr>
      <th scope="row">${table}</th>
      <td><progress max="100" value="${percent}">${percent} %</progress> ${percent} %</td>
      <td class="text">
        ${status.replaceAll('_', ' ')}${status === 'running' ? ` (${phase})` : ''} ·
        ${number(run.changed)} of ${number(run.rows)} rows
        changed${bad}${left}${reason ? html`<br /><em>${reason}</em>` : ''}
      </td>
    </tr>`;
  });
  return html`<table>
    <tbody>
      ${rows}
    </tbody>
  </table>`;
}
