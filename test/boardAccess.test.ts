import { expect, describe, it } from 'vitest';

import { checkExposure, isAuthorised, refusalOf, type AccessConfig } from '../src/board/access.ts';
import { ConfigError } from '../src/errors.ts';
import { testConfig } from './support/pipeline.ts';

const CREDENTIALS = {
  ANNALS_BOARD_PASSWORD: 'correct horse',
  ANNALS_BOARD_TOKEN: 'battery-staple-0123',
};
const open = testConfig();
const closed = testConfig(CREDENTIALS);
const readOnly = testConfig({ ...CREDENTIALS, ANNALS_BOARD_READ_ONLY: 'true' });

const basic = (user: string, password: string) =>
  `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
const asked = (headers: Record<string, string> = {}, method = 'GET') => ({
  method,
  headers: { host: '127.0.0.1:7300', ...headers },
});
const status = (config: AccessConfig, request: ReturnType<typeof asked>) =>
  refusalOf(config, request)?.status ?? 200;

it.each(['0.0.0.0', '::', '192.0.2.1', 'annals.example', '127.example', '0'])(
  'refuses to listen on %s without credentials',
  (host) => {
    const env = { ANNALS_BOARD_HOST: host };
    expect(() => checkExposure(testConfig(env))).toThrow(ConfigError);
    for (const [name, value] of Object.entries(CREDENTIALS)) {
      expect(() => checkExposure(testConfig({ ...env, [name]: value }))).not.toThrow();
    }
  },
);

it.each(['127.0.0.1', '127.1.2.3', '::1', 'localhost'])('listens on %s as it is', (host) => {
  expect(() => checkExposure(testConfig({ ANNALS_BOARD_HOST: host }))).not.toThrow();
});

it('takes no weak credentials, and does not repeat them', () => {
  const start = () => testConfig({ ANNALS_BOARD_PASSWORD: 'short', ANNALS_BOARD_TOKEN: 'shorter' });
  expect(start).toThrow(/ANNALS_BOARD_PASSWORD: got a value \(hidden\)[^]*ANNALS_BOARD_TOKEN/);
});

it('takes no token that no header could bring', () => {
  for (const token of ['battery staple 0123', 'battery-staple-0123 ', 'battery-staple\t0123']) {
    const start = () => testConfig({ ANNALS_BOARD_TOKEN: token });
    expect(start).toThrow(/ANNALS_BOARD_TOKEN: got a value \(hidden\); takes no white space/);
  }
});

it.each([
  [{}, 200],
  [{ host: 'annals.example' }, 403],
  [{ 'x-forwarded-for': '192.0.2.1' }, 403],
  [{ forwarded: 'for=192.0.2.1' }, 403],
])('without credentials, %o is answered with %i', (headers, expected) => {
  expect(status(open, asked(headers as Record<string, string>))).toBe(expected);
});

describe('with credentials', () => {
  it.each([
    ['the password', basic('annals', 'correct horse'), 200],
    ['the token', 'Bearer battery-staple-0123', 200],
    ['a scheme in other case', 'bearer battery-staple-0123', 200],
    ['a wrong password', basic('annals', 'correct horsf'), 401],
    ['a wrong user', basic('root', 'correct horse'), 401],
    ['the token as a password', basic('annals', 'battery-staple-0123'), 401],
    ['the password as a token', 'Bearer correct', 401],
    ['no password', basic('annals', ''), 401],
    ['an empty token', 'Bearer ', 401],
    ['another scheme', 'Digest battery-staple-0123', 401],
    ['nothing', '', 401],
  ])('%s: %s is answered with %i', (_, authorization, expected) => {
    expect(status(closed, asked({ authorization }))).toBe(expected);
  });

  it('an unset token or password is not an empty one', () => {
    const token = testConfig({ ANNALS_BOARD_TOKEN: CREDENTIALS.ANNALS_BOARD_TOKEN });
    expect(isAuthorised(token, asked({ authorization: basic('annals', '') }))).toBe(false);
    const password = testConfig({ ANNALS_BOARD_PASSWORD: CREDENTIALS.ANNALS_BOARD_PASSWORD });
    expect(isAuthorised(password, asked({ authorization: 'Bearer ' }))).toBe(false);
    expect(isAuthorised(password, asked({ authorization: 'Bearer' }))).toBe(false);
  });
});

describe('changes', () => {
  const authorization = 'Bearer battery-staple-0123';
  const change = (config: AccessConfig, headers: Record<string, string>) =>
    status(config, asked({ authorization, host: 'annals.example', ...headers }, 'PUT'));

  it.each([
    ['from no page', {}, 200],
    ['from our page', { origin: 'https://annals.example', 'sec-fetch-site': 'same-origin' }, 200],
    ['from our page, in an old browser', { origin: 'https://annals.example' }, 200],
    [
      'from our page, through a proxy that names us otherwise',
      { host: 'board:7300', origin: 'https://annals.example', 'sec-fetch-site': 'same-origin' },
      200,
    ],
    ['the same, in an old browser', { host: 'board:7300', origin: 'https://annals.example' }, 403],
    ['from elsewhere', { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' }, 403],
    ['from elsewhere, in an old browser', { origin: 'https://evil.example' }, 403],
    ['from a neighbour', { 'sec-fetch-site': 'same-site' }, 403],
    ['from a sandbox', { origin: 'null' }, 403],
  ])('%s are answered with %o → %i', (_, headers, expected) => {
    expect(change(closed, headers)).toBe(expected);
    expect(change(readOnly, headers)).toBe(403);
  });
});

it('on loopback, answers to names of loopback only: others may be made to point here', () => {
  for (const host of ['127.0.0.1:7300', 'localhost:7300', '[::1]:7300', 'localhost']) {
    expect(status(open, asked({ host }))).toBe(200);
  }
  for (const host of [
    'evil.example:7300',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    '',
  ]) {
    expect(status(open, asked({ host }))).toBe(403);
    // A page of that name, pointed here, is of one origin with us as far as its browser can tell.
    const own = { host, origin: `http://${host}`, 'sec-fetch-site': 'same-origin' };
    expect(status(open, asked(own, 'PUT'))).toBe(403);
  }
});
