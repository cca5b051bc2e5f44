import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeAll, expect, it } from 'vitest';

import { Outlet } from '../src/producers/outlet.ts';
import { EVENT_KINDS } from '../src/queues/events.ts';
import { createEmptyDatabase, type EmptyDatabase } from './support/emptyDatabase.ts';

let db: EmptyDatabase;
let proxy: Server;
const open = new Set<Socket>();
let isSilent = false;

/** PostgreSQL behind a path on which everything that is sent is lost, from some moment on. */
beforeAll(async () => {
  db = await createEmptyDatabase();
  const { hostname, port } = new URL(db.url);
  proxy = createServer((client) => {
    open.add(client);
    client.on('close', () => open.delete(client)).on('error', () => {});
    const server = connect(Number(port), hostname);
    server.on('error', () => {});
    client.on('data', (data) => isSilent || server.write(data));
    server.on('data', (data) => isSilent || client.write(data));
    client.on('close', () => server.destroy());
  });
  await once(proxy.listen(0, '127.0.0.1'), 'listening');
});
afterAll(async () => {
  proxy.close();
  await db.drop();
});

it('leaves no connection to a PostgreSQL that is silent, however many calls wait for one', async () => {
  const url = new URL(db.url);
  url.host = `127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  const outlet = new Outlet(
    { kind: 'postgres', url: url.href, prefix: 'closing' },
    () => {},
    () => {},
  );
  const send = (kind: (typeof EVENT_KINDS)[number]) => outlet.send(kind, '{}', 200);
  const [last, ...others] = EVENT_KINDS;
  await Promise.all(others.map((kind) => outlet.send(kind, '{}', 10_000)));
  isSilent = true;
  // Late calls take all connections, and the first call of the last queue waits for one.
  for (const kind of [...others, ...others, last!])
    await expect(send(kind)).rejects.toThrow(/200 ms/);
  expect(open.size).toBeGreaterThan(0);
  await outlet.disconnect();
  await sleep(500);
  expect(open.size).toBe(0);
});
