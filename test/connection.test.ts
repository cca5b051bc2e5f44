import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';

import { createPool } from '../src/database/connection.ts';
import { createPrismaClient } from '../src/database/client.ts';
import { EVENT_KINDS } from '../src/queues/events.ts';
import { prepareQueues } from '../src/queues/backend.ts';
import { createTestDatabase, type TestDatabase } from './support/database.ts';
import { sample } from './support/events.ts';
import { seedParents, testProducer, testWorkers } from './support/pipeline.ts';

/** ReadyForQuery, with which a server greets: the session is idle. */
const GREETING = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);

const field = (code: string, value: string) => Buffer.from(`${code}${value}\0`);

/** ErrorResponse, as a server's processes send it when the postmaster has been killed. */
const GOODBYE = (() => {
  const fields = Buffer.concat([
    field('S', 'FATAL'),
    field('V', 'FATAL'),
    field('C', '57P01'),
    field('M', 'terminating connection due to unexpected postmaster exit'),
    Buffer.of(0),
  ]);
  const head = Buffer.of(0x45, 0, 0, 0, 0);
  head.writeUInt32BE(fields.length + 4, 1);
  return Buffer.concat([head, fields]);
})();

/** In front of the real server: while `isDying`, a session ends within the packet that opens it. */
let isDying = false;
let goodbyes = 0;
let proxy: Server;
let db: TestDatabase;
let url: string;
const sockets = new Set<Socket>();
/** Those on which a worker waits to be told of jobs. */
const listening = new Set<Socket>();
const uncaught: Error[] = [];
const onUncaught = (error: Error) => uncaught.push(error);

beforeAll(async () => {
  db = await createTestDatabase();
  await seedParents(db);
  const target = new URL(db.url);
  proxy = createServer((client) => {
    const server = connect(Number(target.port), target.hostname);
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => {}); // 'close' follows
      socket.on('close', () => {
        sockets.delete(socket);
        listening.delete(socket);
        other.destroy();
      });
    }
    client.on('data', (data) => {
      if (data.includes('LISTEN ')) listening.add(client);
      server.write(data);
    });
    server.on('data', (data) => {
      if (!isDying || !data.subarray(-GREETING.length).equals(GREETING)) return client.write(data);
      goodbyes++;
      return client.end(Buffer.concat([data, GOODBYE]));
    });
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  url = Object.assign(new URL(db.url), { port: (proxy.address() as AddressInfo).port }).href;
  process.on('uncaughtExceptionMonitor', onUncaught);
});

afterEach(() => {
  isDying = false;
  goodbyes = 0;
  expect(uncaught.splice(0)).toEqual([]);
});

afterAll(async () => {
  process.off('uncaughtExceptionMonitor', onUncaught);
  for (const socket of sockets) socket.destroy();
  proxy.close();
  await db.drop();
});

it('rejects a transaction whose connection ends as it opens, and the next one works', async () => {
  const prisma = createPrismaClient(url);
  const count = () => prisma.$transaction((tx) => tx.aI_Agent.count());
  isDying = true;
  await expect(count()).rejects.toThrow(/connection error/);
  expect(goodbyes).toBeGreaterThan(0);
  isDying = false;
  await expect(count()).resolves.toBeGreaterThan(0);
  await prisma.$disconnect();
});

it('rejects what a connection from a pool is asked after its end', async () => {
  const pool = createPool({ connectionString: url });
  isDying = true;
  const ask = async () => {
    const client = await pool.connect();
    try {
      await client.query('SELECT 1');
    } finally {
      client.release(true);
    }
  };
  await expect(ask()).rejects.toThrow(/connection error/);
  expect(goodbyes).toBe(1);
  isDying = false;
  await ask();
  await pool.end();
});

it.each([
  ['every connection', () => sockets],
  ['only the connections on which it listens', () => listening],
])('goes on in a worker that lost %s', async (_, lost) => {
  const queue = { kind: 'postgres', url, prefix: 'annals' } as const;
  await prepareQueues(queue);
  const workers = await testWorkers({ url }, queue);
  const producer = testProducer(queue);
  const emit = async () => {
    const before = await db.prisma.memoryAccess.count();
    for (const kind of EVENT_KINDS) producer.emit(kind, sample(kind, before) as never);
    await producer.flush();
    const stored = () => db.prisma.memoryAccess.count();
    await expect.poll(stored, { timeout: 20_000 }).toBe(before + 1);
  };
  await emit();
  await expect.poll(() => listening.size).toBe(EVENT_KINDS.length);
  isDying = true;
  for (const socket of lost()) socket.destroy();
  await sleep(1500);
  expect(goodbyes).toBeGreaterThanOrEqual(EVENT_KINDS.length);
  isDying = false;
  await emit();
  await producer.close();
  await workers.stop(5000);
});
