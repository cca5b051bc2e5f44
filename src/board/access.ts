import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';

import type { Config } from '../config.ts';
import { ConfigError } from '../errors.ts';

export type AccessConfig = Pick<
  Config,
  | 'ANNALS_BOARD_HOST'
  | 'ANNALS_BOARD_USER'
  | 'ANNALS_BOARD_PASSWORD'
  | 'ANNALS_BOARD_TOKEN'
  | 'ANNALS_BOARD_READ_ONLY'
>;

/** What of a request decides whether it is served. */
export interface AccessRequest {
  method: string;
  headers: {
    authorization?: string | undefined;
    host?: string | undefined;
    origin?: string | undefined;
    'sec-fetch-site'?: string | string[] | undefined;
    forwarded?: string | undefined;
    'x-forwarded-for'?: string | string[] | undefined;
  };
}

/** Why a request is refused. */
export interface Refusal {
  status: 401 | 403;
  message: string;
}

/**
 * @throws {ConfigError} when the board would listen beyond loopback without credentials
 */
export function checkExposure(config: AccessConfig): void {
  if (isLoopback(config.ANNALS_BOARD_HOST) || hasCredentials(config)) return;
  throw new ConfigError(
    `ANNALS_BOARD_HOST: got ${JSON.stringify(config.ANNALS_BOARD_HOST)}, which others can reach; ` +
      'set ANNALS_BOARD_PASSWORD or ANNALS_BOARD_TOKEN, or listen on 127.0.0.1',
  );
}

/** Says why the request must not be served, or nothing if it may. */
export function refusalOf(config: AccessConfig, request: AccessRequest): Refusal | undefined {
  if (!isAuthorised(config, request)) {
    if (!hasCredentials(config)) {
      return {
        status: 403,
        message:
          'This board has neither a password nor a token, so it answers to http://127.0.0.1 and http://localhost only, and to no proxy.',
      };
    }
    return { status: 401, message: 'This board takes a user and a password, or a bearer token.' };
  }
  if (request.method === 'GET' || request.method === 'HEAD') return undefined;
  if (config.ANNALS_BOARD_READ_ONLY) {
    return { status: 403, message: 'This board only shows (ANNALS_BOARD_READ_ONLY).' };
  }
  if (!isSameOrigin(request)) {
    return { status: 403, message: 'Changes are taken from the board’s own pages only.' };
  }
  return undefined;
}

export function isAuthorised(config: AccessConfig, { headers }: AccessRequest): boolean {
  // A page elsewhere may let its own name point to 127.0.0.1 (DNS rebinding) and so be of one
  // origin with us; the name that it was called by gives it away. Credentials it would not have.
  // A proxy on this machine calls us by that name for others, and mostly says so.
  if (!hasCredentials(config)) {
    const isForOthers = (headers.forwarded ?? headers['x-forwarded-for']) !== undefined;
    return isLoopback(hostnameOf(headers.host)) && !isForOthers;
  }
  const { ANNALS_BOARD_USER: user, ANNALS_BOARD_PASSWORD: password } = config;
  const [scheme = '', given = ''] = (headers.authorization ?? '').split(' ', 2);
  switch (scheme.toLowerCase()) {
    case 'bearer':
      return isEqual(given, config.ANNALS_BOARD_TOKEN);
    case 'basic':
      return isEqual(
        Buffer.from(given, 'base64').toString(),
        password === undefined ? undefined : `${user}:${password}`,
      );
    default:
      return false;
  }
}

/**
 * Whether a change comes from our own pages or from no page at all. A browser says where a page is
 * from, which no script can make it say wrongly; what is no browser (curl) says nothing, and carries
 * nobody's credentials but its own. Older browsers tell the origin only, which a proxy that puts its
 * own name in `Host` makes a foreign one.
 */
function isSameOrigin({ headers }: AccessRequest): boolean {
  const site = headers['sec-fetch-site'];
  if (site === 'same-origin') return true;
  if (site !== undefined && site !== 'none') return false;
  const { origin } = headers;
  if (origin === undefined) return true;
  return URL.canParse(origin) && new URL(origin).host === headers.host;
}

function hasCredentials(config: AccessConfig): boolean {
  return (config.ANNALS_BOARD_PASSWORD ?? config.ANNALS_BOARD_TOKEN) !== undefined;
}

function isLoopback(host: string): boolean {
  if (isIP(host) === 4) return host.startsWith('127.');
  return host === '::1' || host === 'localhost';
}

function hostnameOf(host = ''): string {
  return URL.canParse(`http://${host}`)
    ? new URL(`http://${host}`).hostname.replaceAll(/[[\]]/g, '')
    : '';
}

/** Takes the same time whatever is given, and however much of it is right. */
function isEqual(given: string, wanted: string | undefined): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(wanted ?? '')) && wanted !== undefined;
}
