import { readFileSync } from 'node:fs';

import type { FastifyInstance } from 'fastify';

import { html, type Html } from './html.ts';
import { renderSections, type Sections } from './overview.ts';
import type { Watch } from './watch.ts';

const OWN = new URL('../../assets/board/', import.meta.url);

/** Files that the page loads. There is no build: they are served as they are. */
const ASSETS = {
  'board.css': ['text/css', read(new URL('board.css', OWN))],
  'board.js': ['text/javascript', read(new URL('board.js', OWN))],
  'uPlot.css': ['text/css', read(import.meta.resolve('uplot/dist/uPlot.min.css'))],
  'uPlot.js': ['text/javascript', read(import.meta.resolve('uplot/dist/uPlot.esm.js'))],
} as const;

function read(url: string | URL): string {
  return readFileSync(new URL(url), 'utf8');
}

/** Serves the overview: the page with all that is known, and what keeps it live. */
export function addOverview(server: FastifyInstance, watch: Watch): void {
  const sections = () => renderSections(watch.sight(), watch.history.latest(Date.now()));
  server.get('/', async (_, reply) => {
    return reply.type('text/html').send(`<!doctype html>\n${page(sections()).text}`);
  });
  server.get<{ Querystring: { since?: string } }>('/live', async ({ query }) => ({
    points: watch.history.since(Number(query.since) || 0),
    sections: Object.fromEntries(Object.entries(sections()).map(([id, { text }]) => [id, text])),
  }));
  for (const [name, [type, text]] of Object.entries(ASSETS)) {
    server.get(`/assets/${name}`, async (_, reply) => reply.type(type).send(text));
  }
}

const CHARTS = [
  ['rate', 'Committed', 'events a second'],
  ['lag', 'Lag', 'from occurrence to commit'],
  ['depth', 'Backlog', 'jobs that wait or are active'],
  ['batch', 'Batch', 'events in a write'],
] as const;

function page({ status, tiles, queues, letters, recount, backfills }: Sections): Html {
  const charts = CHARTS.map(
    ([id, title, about]) =>
      html`<figure>
        <figcaption><b>${title}</b> ${about}</figcaption>
        <div
          id="chart-${id}"
          role="img"
          aria-label="${title}: ${about}, over the last 15 minutes"
        ></div>
      </figure>`,
  );
  return html`<html lang="en">
    <head>
      <meta charset="utf-8" />
      <meta name="viewport" content="width=device-width, initial-scale=1" />
      <meta name="color-scheme" content="light dark" />
      <title>Annals</title>
      <link rel="icon" href="data:," />
      <link rel="stylesheet" href="/assets/uPlot.css" />
      <link rel="stylesheet" href="/assets/board.css" />
      <script type="module" src="/assets/board.js"></script>
    </head>
    <body>
      <header>
        <h1>Annals</h1>
        <div id="status" role="status">${status}</div>
        <nav><a href="/queues">Queues</a> <a href="/metrics">Metrics</a></nav>
      </header>
      <main>
        <section id="tiles" aria-label="Now">${tiles}</section>
        <section class="charts" aria-label="The last 15 minutes">${charts}</section>
        <section>
          <h2>Queues</h2>
          <div id="queues" class="wide">${queues}</div>
        </section>
        <section>
          <h2>Dead letters</h2>
          <div id="letters" class="wide">${letters}</div>
        </section>
        <section>
          <h2>Session counts</h2>
          <div id="recount" class="wide">${recount}</div>
        </section>
        <section>
          <h2>Backfills</h2>
          <div id="backfills" class="wide">${backfills}</div>
        </section>
      </main>
    </body>
  </html>`;
}
