// @ts-check
import { DriverAdapterError } from '@prisma/driver-adapter-utils';

/** A fault with the code and the words of Prisma's catalogue: https://pris.ly/d/error-reference */
export class UserFacingError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * Why a connection could not be made.
 *
 * @param {any} error - as `pg` threw it
 * @param {import('pg').Client} client - the one that could not connect
 */
export function connectionError(error, { host, port, user, database }) {
  const server = `\`${host}:${port}\``;
  const running = `Please make sure your database server is running at ${server}.`;
  switch (error.code) {
    case '28P01':
      return new UserFacingError(
        'P1000',
        `Authentication failed against database server, the provided database credentials for \`${user}\` are not valid.\n\nPlease make sure to provide valid database credentials for the database server at the configured address.`,
      );
    case '3D000':
      return new UserFacingError('P1003', `Database \`${database}\` does not exist`);
    case '28000':
    case '42501':
      return new UserFacingError(
        'P1010',
        `User was denied access on the database \`${database}\`: ${error.message}`,
      );
  }
  if (isSqlState(error.code))
    return new UserFacingError(
      'P1002',
      `The database server at ${server} was reached but refused the connection: ${error.message}`,
    );
  if (error.message.startsWith('SASL'))
    return new UserFacingError(
      'P1000',
      `Authentication failed against database server: ${error.message}`,
    );
  if (/SSL|TLS|certificate/i.test(`${error.code} ${error.message}`))
    return new UserFacingError('P1011', `Error opening a TLS connection: ${error.message}`);
  return new UserFacingError('P1001', `Can't reach database server at ${server}\n\n${running}`);
}

/** A fault of a statement, for the engine to judge. @param {any} error - as `pg` threw it */
export function statementError(error) {
  if (!isSqlState(error.code)) return new DriverAdapterError({ kind: 'ConnectionClosed' });
  const { code, severity, message, detail, column, hint } = error;
  return new DriverAdapterError({
    kind: 'postgres',
    code,
    severity,
    message,
    detail,
    column,
    hint,
  });
}

/** @param {unknown} code */
const isSqlState = (code) => typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code);
