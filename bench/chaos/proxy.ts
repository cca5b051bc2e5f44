import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

/** A TCP proxy in front of a server, so that its connections can be reset while both ends live. */
export interface Proxy {
  /** The server's URL, by way of the proxy. */
  url: string;
  /** Resets every connection, on both sides. */
  reset(): void;
  /** Leads new connections to another server, with the same password. */
  lead(url: string): void;
  /** Lets nothing through on the connections that there are, like a path that drops packets. */
  silence(): void;
  /** Resets every connection, and each new one at once. */
  refuse(): void;
  /** Lets connections through again. */
  admit(): void;
  /** Connections that it has let through. */
  readonly admitted: number;
  close(): void;
}

export async function startProxy(url: string): Promise<Proxy> {
  let target = new URL(url);
  const sockets = new Set<Socket>();
  let isRefusing = false;
  let admitted = 0;
  const keep = (socket: Socket, other: Socket) => {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => {}); // 'close' follows
    socket.once('close', () => {
      sockets.delete(socket);
      other.destroy();
    });
  };
  const server = createServer((client) => {
    if (isRefusing) {
      client.on('error', () => {}).resetAndDestroy();
      return;
    }
    admitted++;
    const upstream = connect(Number(target.port), target.hostname);
    keep(client, upstream);
    keep(upstream, client);
    client.pipe(upstream).pipe(client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const reset = () => {
    for (const socket of sockets) socket.resetAndDestroy();
  };
  return {
    url: Object.assign(new URL(url), { host: `127.0.0.1:${port}` }).href,
    reset,
    lead: (to) => {
      target = new URL(to);
    },
    silence: () => {
      for (const socket of sockets) socket.unpipe().pause();
    },
    refuse: () => {
      isRefusing = true;
      reset();
    },
    admit: () => {
      isRefusing = false;
    },
    get admitted() {
      return admitted;
    },
    close: () => {
      server.close();
      reset();
    },
  };
}
