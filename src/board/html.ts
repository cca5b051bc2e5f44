/** Text that is HTML already. */
export class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type Value = Html | string | number | readonly Html[];

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/**
 * HTML from a template. Whatever is put in is escaped, in text and in quoted attributes alike,
 * unless it was made by this function.
 *
 * @example html`<p title="${title}">${text}</p>`
 */
export function html(template: TemplateStringsArray, ...values: Value[]): Html {
  const parts = values.map((value, index) => `${toText(value)}${template[index + 1]}`);
  return new Html(`${template[0]}${parts.join('')}`);
}

function toText(value: Value): string {
  if (value instanceof Html) return value.text;
  if (typeof value === 'object') return value.map(({ text }) => text).join('');
  return String(value).replaceAll(/[&<>"']/g, (character) => ENTITIES[character] as string);
}

const NONE = '–';

/** Such as `1,234`, `12.3` and `0.04`: three digits that matter. */
export function number(value: number | null): string {
  if (value === null) return NONE;
  return value.toLocaleString('en', {
    maximumFractionDigits: value >= 100 ? 0 : value >= 10 ? 1 : 2,
  });
}

const UNITS: readonly [seconds: number, unit: string][] = [
  [86_400, 'd'],
  [3600, 'h'],
  [60, 'min'],
  [1, 's'],
];

/** Such as `12 ms`, `3.4 s` and `2.5 h`. */
export function duration(seconds: number | null): string {
  if (seconds === null) return NONE;
  const [size, unit] = UNITS.find(([size]) => seconds >= size) ?? [0.001, 'ms'];
  const value = seconds / size;
  return `${value >= 10 ? Math.round(value) : Number(value.toPrecision(2))} ${unit}`;
}

/** The same of what is known up to `longest` only: `> 1 d` at its end. */
export function durationUpTo(longest: number, seconds: number | null): string {
  return seconds !== null && seconds >= longest ? `> ${duration(longest)}` : duration(seconds);
}

/** Such as `0 B`, `12.3 kB` and `3.4 MB`. */
export function bytes(value: number): string {
  if (value < 1e3) return `${value} B`;
  return value < 1e6 ? `${number(value / 1e3)} kB` : `${number(value / 1e6)} MB`;
}
