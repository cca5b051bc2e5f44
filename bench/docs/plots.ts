import * as echarts from 'echarts';

import { readRows, thousands } from './results.ts';

/** Text and lines, which a style sheet within the picture makes dark or light as the reader's page is. */
const [INK, FAINT] = ['var(--ink)', 'var(--faint)'];
const STYLE = `<style>
svg { --ink: #1f2328; --faint: #d1d9e0; }
@media (prefers-color-scheme: dark) { svg { --ink: #e6edf3; --faint: #3d444d; } }
</style>`;

/** Legible on white and on black. */
const [BLUE, LIGHT_BLUE, ORANGE, LIGHT_ORANGE, TEAL] = [
  '#2f81f7',
  '#79b8ff',
  '#d9822b',
  '#f0b67f',
  '#2da44e',
];

const WIDTH = 760;

/** What each plot shows of which run. */
const PLOTS = {
  ingest: {
    height: 290,
    option: () => {
      const rows = readRows('ingest').toReversed();
      return horizontal({
        names: rows.map(({ name }) => String(name)),
        title: 'events a second, from emit to committed',
        series: [
          {
            data: rows.map(({ name, eventsPerSecond }) => ({
              value: eventsPerSecond,
              itemStyle: { color: String(name).startsWith('annals') ? BLUE : FAINT_BAR },
            })),
            label: labelled('right'),
          },
        ],
      });
    },
  },
  latency: {
    height: 300,
    option: () => {
      const rows = readRows('latency');
      const rates = [...new Set(rows.map(({ rate }) => Number(rate)))];
      const of = (contestant: string, figure: string) =>
        rates.map(
          (rate) =>
            rows.find(
              (row) => row['rate'] === rate && String(row['name']).startsWith(contestant),
            )?.[figure] ?? null,
        );
      return vertical({
        names: rates.map((rate) => `${thousands(rate)} events/s`),
        title: 'milliseconds from emit until another session sees the row',
        scale: 'log',
        series: [
          ['Redis, median', 'annals-redis', 'p50Ms', LIGHT_BLUE],
          ['Redis, 99th percentile', 'annals-redis', 'p99Ms', BLUE],
          ['PostgreSQL, median', 'annals-postgres', 'p50Ms', LIGHT_ORANGE],
          ['PostgreSQL, 99th percentile', 'annals-postgres', 'p99Ms', ORANGE],
        ].map(([name = '', contestant = '', figure = '', color]) => ({
          name,
          data: of(contestant, figure),
          itemStyle: { color },
          label: labelled('top'),
        })),
      });
    },
  },
  growth: {
    height: 260,
    option: () => {
      const rows = readRows('growth');
      return vertical({
        names: rows.map(({ rowsBefore }) => `${thousands(rowsBefore)} rows`),
        title: 'events a second into tables that hold so many rows',
        series: [
          {
            data: rows.map(({ eventsPerSecond }) => eventsPerSecond),
            itemStyle: { color: BLUE },
            barWidth: 90,
            label: labelled('top'),
          },
        ],
      });
    },
  },
  scale: {
    height: 320,
    option: () => {
      const rows = readRows('scale').toReversed();
      const part = (name: string, figure: string, color: string) => ({
        name,
        stack: 'cpu',
        data: rows.map((row) => row[figure] ?? null),
        itemStyle: { color },
      });
      return horizontal({
        names: rows.map(
          ({ name, eventsPerSecond }) => `${String(name)}: ${thousands(eventsPerSecond)}/s`,
        ),
        title: 'percent of all cores, by number of worker processes',
        series: [
          part('producers and workers', 'ownCpuPercent', BLUE),
          part('PostgreSQL', 'postgresCpuPercent', ORANGE),
          part('Redis', 'redisCpuPercent', TEAL),
        ],
      });
    },
  },
} as const satisfies Record<string, { height: number; option: () => echarts.EChartsOption }>;

export type PlotName = keyof typeof PLOTS;
export const PLOT_NAMES = Object.keys(PLOTS) as PlotName[];

const FAINT_BAR = '#8b949e';

const labelled = (position: 'right' | 'top') => ({
  show: true,
  position,
  color: INK,
  formatter: ({ value }: { value?: unknown }) => (value === null ? '' : thousands(value)),
});

interface Shape {
  names: string[];
  title: string;
  scale?: 'log' | 'value';
  series: object[];
}

const figures = (type: 'log' | 'value' = 'value') => ({
  type,
  axisLabel: { color: INK, formatter: thousands },
  splitLine: { lineStyle: { color: FAINT } },
});

const names = (data: string[]) => ({
  type: 'category' as const,
  data,
  axisLabel: { color: INK },
  axisLine: { lineStyle: { color: FAINT } },
  axisTick: { show: false },
});

/** Pixels of a character at most; without a screen, no text can be measured. */
const CHARACTER = 7.5;

const frame = ({ title, series }: Shape, left: number) => ({
  animation: false,
  textStyle: { fontFamily: 'system-ui, sans-serif' },
  title: {
    text: title,
    left: 0,
    top: 0,
    padding: 0,
    textStyle: { color: INK, fontSize: 13, fontWeight: 'normal' as const },
  },
  legend: {
    show: series.length > 1,
    top: 26,
    left: 0,
    padding: 0,
    itemGap: 28,
    itemHeight: 10,
    textStyle: { color: INK },
  },
  grid: { left, right: 60, bottom: 28, top: series.length > 1 ? 68 : 44 },
  series: series.map((each) => ({ type: 'bar', ...each })) as echarts.BarSeriesOption[],
});

const horizontal = (shape: Shape) => ({
  ...frame(shape, 12 + CHARACTER * Math.max(...shape.names.map(({ length }) => length))),
  xAxis: figures(shape.scale),
  yAxis: names(shape.names),
});

const vertical = (shape: Shape) => ({
  ...frame(shape, 60),
  xAxis: names(shape.names),
  yAxis: figures(shape.scale),
});

/** The SVG of a plot; the same run makes the same text. */
export function plot(name: PlotName): string {
  const { height, option } = PLOTS[name];
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height });
  chart.setOption(option());
  const svg = chart.renderToSVGString();
  chart.dispose();
  return `${svg.replace(/(<svg[^>]*>)/, `$1\n${STYLE}`)}\n`;
}
