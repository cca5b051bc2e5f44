import { addAbortSignal, type Readable } from 'node:stream';

import { InvalidEventError, UsageError } from '../../errors.ts';
import { readLines, type Line } from '../../lines.ts';
import { createProducer, type Producer } from '../../producers/producer.ts';
import { configuredSpoolFolder } from '../../producers/spool/destination.ts';
import { MAX_EVENT_BYTES } from '../../queues/eventEncoding.ts';
import { EVENT_KINDS, type EventInput, type EventKind } from '../../queues/events.ts';
import { inEnvironment } from '../environment.ts';
import type { EmitOptions } from '../emit.ts';
import { openFile } from '../file.ts';
import { reasonOf } from '../../outage.ts';
import { table } from '../table.ts';

/** An event of the greatest size may be written with escapes (\u0041 for A) and white space. */
const MAX_LINE_BYTES = 8 * MAX_EVENT_BYTES;

/** Milliseconds between two warnings that the queue is away. */
const WARN_EVERY_MS = 10_000;

export async function emit(file: string | undefined, options: EmitOptions): Promise<void> {
  const defaultKind = options.kind === undefined ? undefined : parseKind(options.kind);
  if (options.kind !== undefined && !defaultKind) {
    throw new UsageError(`--kind: got ${options.kind}; takes one of ${EVENT_KINDS.join(', ')}`);
  }
  const isStdin = file === undefined || file === '-';
  const source: Readable = isStdin ? process.stdin : await openFile(file);

  // A queue that is away is no reason to refuse events: the spool takes them.
  await inEnvironment({ ...options, needs: 'none' }, async (environment) => {
    const { closer, config, log, queue, remainingMs, result, say, stopping } = environment;
    let warnedAt = -WARN_EVERY_MS;
    const producer = createProducer({
      config,
      queue,
      spoolFolder: configuredSpoolFolder(config),
      onCorrupt: (spoolFile, places) =>
        log.error({ file: spoolFile, places }, 'events in the spool are damaged and lost'),
      onError: (error) => {
        if (performance.now() - warnedAt < WARN_EVERY_MS) return;
        warnedAt = performance.now();
        log.warn({ reason: reasonOf(error) }, 'the queue does not take events; trying again');
      },
    });
    const close = () => producer.close({ deadlineMs: remainingMs() }).catch(() => {}); // `dropped` tells
    closer.add('producer', close);
    // A close that has begun also ends the waiting for room and for the queue.
    const closed = new Promise<void>((resolve) => {
      stopping.addEventListener('abort', () => void close().then(resolve), { once: true });
    });

    if (isStdin && process.stdin.isTTY) console.error('Reading events…; Ctrl-D ends');
    let read = 0;
    let invalid = 0;
    try {
      for await (const line of readLines(addAbortSignal(stopping, source), MAX_LINE_BYTES)) {
        read++;
        const fault = emitLine(producer, line, defaultKind);
        if (fault !== undefined) {
          invalid++;
          console.error(`${isStdin ? 'line ' : `${file}:`}${line.number}: ${fault}`);
          if (options.strict) break;
        }
        await producer.ready();
      }
    } catch (error) {
      if (!stopping.aborted) throw error;
    }
    await Promise.race([producer.flush(), closed]);
    await close();

    const { accepted, delivered, spooled, dropped, adopted } = producer.stats();
    const summary = { read, accepted, delivered, spooled, invalid, dropped };
    result(summary, table(Object.keys(summary), [Object.values(summary)]));
    if (adopted > 0) say(`Sent as well, left in the spool by others: ${adopted} events`);
    if (spooled > 0) {
      say(
        `Not taken by the queue: ${spooled} events. They are safe in ${config.ANNALS_SPOOL_DIR}; the next producer that uses it, or "annals emit", sends them`,
      );
    }
    stopping.throwIfAborted();
    return invalid + dropped === 0 ? 0 : 1;
  });
}

/** Emits the event of a line, or says what is wrong with it. */
function emitLine(producer: Producer, line: Line, defaultKind?: EventKind): string | undefined {
  if ('fault' in line) return line.fault;
  let value: unknown;
  try {
    value = JSON.parse(line.text);
  } catch {
    return 'the line is not JSON'; // the parser's own message quotes the content
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return 'takes a JSON object';
  }
  const { kind: given = defaultKind, ...event } = value as { kind?: unknown };
  const kind = parseKind(given);
  if (!kind) {
    const got = given === undefined ? 'is missing' : `got ${JSON.stringify(given).slice(0, 40)}`;
    return `kind: ${got}; takes one of ${EVENT_KINDS.join(', ')}`;
  }
  try {
    producer.emit(kind, event as EventInput);
    return undefined;
  } catch (error) {
    if (error instanceof InvalidEventError) return error.message;
    throw error;
  }
}

const parseKind = (text: unknown) => EVENT_KINDS.find((kind) => kind === text);
