/** What every error of Annals carries besides its message. */
interface ErrorDetails {
  /** Dotted path or field that is at fault, such as `usefulness` or `events[3].memoryId`. */
  field?: string;
  /** The id that is unknown, taken or in the way. */
  id?: string;
  cause?: unknown;
}

/**
 * Base of all errors that Annals throws on purpose. `code` is stable and made for programs,
 * `message` for people: it says what is wrong, which id or field, and what to do.
 */
export abstract class AnnalsError extends Error {
  abstract readonly code: string;
  /** Whether the same call may succeed later without a change by the caller. */
  readonly retryable: boolean = false;
  readonly field: string | undefined;
  readonly id: string | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, 'cause' in details ? { cause: details.cause } : undefined);
    this.name = new.target.name;
    this.field = details.field;
    this.id = details.id;
  }
}

/** The environment or an option is unusable; `message` lists every fault, one a line. */
export class ConfigError extends AnnalsError {
  readonly code = 'CONFIG_INVALID';
}

/** A command line was used wrongly. Commands exit with 2 on it. */
export class UsageError extends AnnalsError {
  readonly code = 'USAGE';
}

/** An event breaks its schema; `field` is the path within the event. */
export class InvalidEventError extends AnnalsError {
  readonly code = 'EVENT_INVALID';
}

/** An argument of a service call is of the wrong type or out of its range; `field` names it. */
export class InvalidArgumentError extends AnnalsError {
  readonly code = 'ARGUMENT_INVALID';
}

/** A row that the call refers to does not exist; `field` names the argument and `id` its value. */
export class NotFoundError extends AnnalsError {
  readonly code = 'NOT_FOUND';
}

/** A row with this id or unique name exists already; `field` names the argument. */
export class DuplicateError extends AnnalsError {
  readonly code = 'DUPLICATE';
}

/** The call would break an invariant between rows, such as a session below its own descendant. */
export class ConflictError extends AnnalsError {
  readonly code = 'CONFLICT';
}

/** Another session holds what the call needs; the message says what, and what to do. */
export class BusyError extends AnnalsError {
  readonly code = 'BUSY';
  override readonly retryable = true;
}

/** A line of an input file cannot be used; `message` begins with the file and the line's number. */
export class InvalidFileError extends AnnalsError {
  readonly code = 'FILE_INVALID';
}

/** A signal stopped the work before it was done. */
export class InterruptedError extends AnnalsError {
  readonly code = 'INTERRUPTED';
  override readonly retryable = true;
}

/** A migration failed; the message says which, why, and how to go on. */
export class MigrationError extends AnnalsError {
  readonly code = 'MIGRATION_FAILED';
}

/** The plain tables were made by other means; the message has the command that records them. */
export class BaselineNeededError extends AnnalsError {
  readonly code = 'BASELINE_NEEDED';
}

/** PostgreSQL or the queue cannot be reached, or did not answer in time. */
export class UnavailableError extends AnnalsError {
  readonly code = 'UNAVAILABLE';
  override readonly retryable = true;
}

/** Memory and spool are full (or the spool cannot be written): the event was not accepted. */
export class SpoolFullError extends AnnalsError {
  readonly code = 'SPOOL_FULL';
  override readonly retryable = true;
}

/** The spool's folder or one of its files cannot be used; the message says which, and why. */
export class SpoolError extends AnnalsError {
  readonly code = 'SPOOL';
  override readonly retryable = true;
  /** The file that cannot be read, where it is one; the others can be sent all the same. */
  readonly file: string | undefined;

  constructor(message: string, { file, ...details }: ErrorDetails & { file?: string } = {}) {
    super(message, details);
    this.file = file;
  }
}

/** An embedded server could not be started; the message says why and what to do. */
export class EmbeddedServerError extends AnnalsError {
  readonly code = 'EMBEDDED_SERVER';
}
