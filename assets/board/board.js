// Keeps the overview live: asks every two seconds for what is new, swaps the parts that the server
// has rendered, and draws the charts.
import uPlot from './uPlot.js';

const EVERY_MS = 2000;

/** Milliseconds after which the board counts as away. */
const ANSWER_MS = 5000;
const SHOWN_MS = 15 * 60 * 1000;
const LEAST_SHOWN_MS = 2 * 60 * 1000;

const points = [];
const charts = new Map();
const dark = matchMedia('(prefers-color-scheme: dark)');

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);

const seconds = (value) => {
  if (value == null) return '–';
  if (value >= 86_400) return `${Number((value / 86_400).toPrecision(2))} d`;
  if (value < 1) return `${Number((value * 1000).toPrecision(2))} ms`;
  if (value < 60) return `${Number(value.toPrecision(2))} s`;
  return value < 3600
    ? `${Math.round(value / 60)} min`
    : `${Number((value / 3600).toPrecision(2))} h`;
};
const plain = (value) =>
  value == null ? '–' : value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 1 : 0 });

/** What each chart shows of a point: its lines, by name. */
const CHARTS = {
  rate: { lines: (point) => point.rate, format: plain },
  lag: {
    lines: ({ lagHalf, lagMost }) => ({ half: lagHalf, '95 %': lagMost }),
    format: seconds,
    longest: 86_400, // the end of the last bucket: of what is beyond, that is all that is known
    log: true,
  },
  depth: { lines: (point) => point.depth, format: plain },
  batch: { lines: ({ batch }) => ({ mean: batch }), format: plain },
};

/** The names and the columns of a chart; the first column is the time in seconds. */
function dataOf({ lines }) {
  const names = Object.keys(points.length > 0 ? lines(points.at(-1)) : {});
  const rows = points.map((point) => lines(point));
  return {
    names,
    columns: [
      points.map(({ at }) => at / 1000),
      ...names.map((name) => rows.map((row) => row[name] ?? null)),
    ],
  };
}

/** The last quarter of an hour, or what there is of it, in seconds since 1970. */
const shownRange = () => {
  const now = Date.now();
  const first = Math.min(points[0]?.at ?? now, now - LEAST_SHOWN_MS);
  return [Math.max(first, now - SHOWN_MS) / 1000, now / 1000];
};

const powersOfTen = (min, max) => {
  const [first, last] = [Math.round(Math.log10(min)), Math.round(Math.log10(max))];
  return Array.from({ length: last - first + 1 }, (_, index) => 10 ** (first + index));
};

function optionsOf({ format, log, longest = Infinity }, names, width) {
  const axis = {
    stroke: colour('faint'),
    grid: { stroke: colour('line'), width: 1 },
    ticks: { show: false },
    font: '11px system-ui, sans-serif',
  };
  return {
    width,
    height: 190,
    padding: [8, 8, 0, 0],
    cursor: { points: { size: 6 }, drag: { x: false, y: false } },
    scales: {
      x: { range: shownRange },
      y: log
        ? {
            distr: 3,
            range: (_, min, max) =>
              min > 0
                ? [10 ** Math.floor(Math.log10(min)), 10 ** Math.ceil(Math.log10(max * 1.01))]
                : [0.01, 1],
          }
        : { range: (_, min, max) => [0, Math.max(1, (max ?? 0) * 1.1)] },
    },
    axes: [
      // Seconds: ticks are told in minutes, and none stands twice.
      { ...axis, space: 60, size: 28, incrs: [60, 120, 300], values: '{HH}:{mm}' },
      {
        ...axis,
        size: 54,
        ...(log && { splits: (_, __, min, max) => powersOfTen(min, max) }),
        values: (_, ticks) => ticks.map((tick) => format(tick)),
      },
    ],
    legend: { markers: { fill: (plot, index) => plot.series[index].stroke() } },
    series: [
      { label: 'at', value: '{HH}:{mm}:{ss}' },
      ...names.map((name, index) => ({
        label: name,
        stroke: colour(`series-${index + 1}`),
        width: 1.75,
        points: { show: false },
        value: (_, value) => `${value >= longest ? '> ' : ''}${format(value)}`,
      })),
    ],
  };
}

function draw() {
  for (const [id, chart] of Object.entries(CHARTS)) {
    const place = document.getElementById(`chart-${id}`);
    const { names, columns } = dataOf(chart);
    const drawn = charts.get(id);
    if (drawn?.names.join() === names.join()) drawn.plot.setData(columns);
    else {
      drawn?.plot.destroy();
      const plot = new uPlot(optionsOf(chart, names, place.clientWidth), columns, place);
      charts.set(id, { names, plot });
    }
    // While no point is pointed at, the legend tells of the last one.
    const { plot } = charts.get(id);
    if (plot.cursor.left < 0) plot.setLegend({ idx: points.length - 1 });
  }
}

function redraw() {
  for (const { plot } of charts.values()) plot.destroy();
  charts.clear();
  draw();
}

function swap(sections) {
  for (const [id, html] of Object.entries(sections)) {
    const element = document.getElementById(id);
    // A part that is the same is left alone, so that a selection in it stays.
    if (element.dataset.html !== html) element.innerHTML = html;
    element.dataset.html = html;
  }
}

async function refresh() {
  const response = await fetch(`/live?since=${points.at(-1)?.at ?? 0}`, {
    signal: AbortSignal.timeout(ANSWER_MS), // a board that hangs answers nothing, not even no
  });
  if (!response.ok) throw new Error(`the board answers with ${response.status}`);
  const live = await response.json();
  points.push(...live.points);
  while (points[0]?.at < Date.now() - SHOWN_MS) points.shift();
  swap(live.sections);
  draw();
}

async function look() {
  try {
    if (!document.hidden) await refresh();
  } catch {
    swap({
      status:
        '<ul class="bad"><li><b>The board</b> does not answer; what is shown is old</li></ul>',
    });
  }
}

async function keepLive() {
  let wake;
  document.addEventListener('visibilitychange', () => wake?.());
  for (;;) {
    await look();
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, EVERY_MS);
    });
  }
}

dark.addEventListener('change', redraw);
new ResizeObserver(() => {
  for (const [id, { plot }] of charts) {
    const width = document.getElementById(`chart-${id}`).clientWidth;
    if (width !== plot.width) plot.setSize({ width, height: plot.height });
  }
}).observe(document.querySelector('.charts'));
void keepLive();
