import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { canonicalJson, checkJson, flattenJson, sha256Hex, toStorable } from '../src/json.ts';

const json = fc.jsonValue({ stringUnit: 'binary' });

/** The same value with the members of every object in another order. */
function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .toReversed()
      .map(([key, member]) => [key, reversed(member)]),
  );
}

describe('canonicalJson', () => {
  test('does not depend on the order of keys', () => {
    fc.assert(
      fc.property(json, (value) => canonicalJson(reversed(value)) === canonicalJson(value)),
    );
  });

  test('is the same JSON, with its keys in ascending order', () => {
    fc.assert(
      fc.property(json, (value) => {
        expect(JSON.parse(canonicalJson(value))).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
    fc.assert(
      fc.property(fc.uniqueArray(fc.string({ unit: 'binary' })), (keys) => {
        const members = keys.toSorted().map((key) => `${JSON.stringify(key)}:1`);
        expect(canonicalJson(Object.fromEntries(keys.map((key) => [key, 1])))).toBe(
          `{${members.join(',')}}`,
        );
      }),
    );
  });

  test('takes everything else as JSON.stringify does', () => {
    for (const value of [
      undefined,
      [undefined],
      { a: undefined },
      new Date(0),
      { d: new Date(0) },
      -0,
      1e21,
      5e-324,
      '\ud800',
      '\u2028',
      [[]],
      Infinity,
    ]) {
      expect(canonicalJson(value)).toBe(JSON.stringify(value) ?? 'null');
    }
    expect(canonicalJson(JSON.parse('{"__proto__":1,"10":2,"9":3}'))).toBe(
      '{"10":2,"9":3,"__proto__":1}',
    );
  });

  test('has a well-known hash', () => {
    expect(sha256Hex(canonicalJson({ b: 'é', a: [1.0, null] }))).toBe(
      // printf '{"a":[1,null],"b":"é"}' | sha256sum
      'e03c3c1ebb5fccd76e3bd35b9a86169f35e6f1b069645d48ac278175f54c4208',
    );
  });
});

describe('checkJson', () => {
  test('passes all that JSON.stringify prints whole', () => {
    fc.assert(fc.property(json, (value) => checkJson(value) === null));
    expect(
      checkJson({ d: new Date(), u: undefined, a: [undefined], n: null, url: new URL('http://a') }),
    ).toBeNull();
  });

  test.each([
    [{ a: { b: [0, 0, 0, NaN] } }, 'a.b[3]', 'got NaN'],
    [[[{ x: 1n }]], '[0][0].x', 'got a bigint'],
    [-Infinity, '', 'got -Infinity'],
    [{ f: () => 1 }, 'f', 'got a function'],
    [[Symbol('s')], '[0]', 'got a symbol'],
    [{ d: { toJSON: () => ({ n: NaN }) } }, 'd.n', 'got NaN'],
  ])('finds what JSON cannot hold: %o', (value, path, reason) => {
    expect(checkJson(value)).toEqual({ path, reason: expect.stringContaining(reason) });
  });

  test('ends in a circle and at 200 levels', () => {
    const circle: Record<string, unknown> = { wide: [1, 2, 3] };
    circle['self'] = circle;
    expect(checkJson(circle)?.reason).toContain('a circle or more than 200 levels');
    const nested = (levels: number): unknown => (levels === 0 ? 1 : [nested(levels - 1)]);
    expect(checkJson(nested(200))).toBeNull();
    expect(checkJson(nested(201))).not.toBeNull();
  });
});

test('checkJson does not look at what is inherited, and not written', () => {
  const heir = Object.create({
    get inherited() {
      throw new Error('looked at');
    },
  });
  expect(checkJson(Object.assign(heir, { own: 1 }))).toBeNull();
});

describe('toStorable', () => {
  test('gives back a clean value itself', () => {
    const clean = { a: ['text', new Date(), '\u{1F600}'], b: null };
    expect(toStorable(clean)).toEqual({ value: clean, replaced: 0 });
    expect(toStorable(clean).value).toBe(clean);
  });

  test('replaces in strings and keys, counts, and leaves the original alone', () => {
    const date = new Date();
    const odd = { 'k\0': ['\ud800\udc00 \udc00\0', date], toJson: { toJSON: () => '\0' }, n: 1 };
    expect(toStorable(odd)).toEqual({
      value: { 'k\uFFFD': ['\ud800\udc00 \uFFFD\uFFFD', date], toJson: '\uFFFD', n: 1 },
      replaced: 4,
    });
    expect(Object.keys(odd)[0]).toBe('k\0');
    const proto = toStorable(JSON.parse('{"__proto__":"\\u0000"}')).value;
    expect(JSON.stringify(proto)).toBe('{"__proto__":"\uFFFD"}');
  });

  test('leaves nothing that PostgreSQL refuses, and is done after one pass', () => {
    const anyText = fc
      .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 5 })
      .map((units) => String.fromCharCode(...units));
    const special = fc.constantFrom('\0', '\ud800', '\udfff', 'a');
    const value = fc.dictionary(fc.oneof(anyText, special), fc.array(fc.oneof(anyText, special)));
    fc.assert(
      fc.property(value, (dirty) => {
        const { value: clean } = toStorable(dirty);
        expect(JSON.stringify(clean)).not.toMatch(/\\u0000|\\ud[89a-f]/);
        expect(toStorable(clean).replaced).toBe(0);
      }),
    );
  });
});

describe('flattenJson', () => {
  test('leaves what is no deeper as it is, and text that is no JSON as well', () => {
    fc.assert(
      fc.property(json, (value) => flattenJson(JSON.stringify(value)) === JSON.stringify(value)),
    );
    for (const text of ['', '"', ']]', '[', '{"a\\', 'null x'])
      expect(flattenJson(text)).toBe(text);
  });

  test('keeps what is deeper as its text', () => {
    const deep = String.raw`[1,{"a":["]\"",{"b":2}]},[[3]]]`;
    expect(JSON.parse(flattenJson(deep, 2))).toEqual([
      1,
      { a: String.raw`["]\"",{"b":2}]` },
      ['[3]'],
    ]);
  });

  test('makes what can be walked and written again of what cannot', () => {
    const text = `{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
    expect(() => canonicalJson(JSON.parse(text))).toThrow(RangeError);
    const flat: unknown = JSON.parse(flattenJson(text));
    expect(canonicalJson(flat).length).toBe(text.length + 2);
    expect(JSON.stringify(flat).length).toBe(text.length + 2);
  });
});
