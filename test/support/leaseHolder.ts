/* Opens the servers, says so on standard output, and holds them until it is killed. */
import { loadConfig } from '../../src/config.ts';
import { openServers } from '../../src/embedded/index.ts';

const { databaseUrl, queue, explanation } = await openServers(loadConfig(), console.error, {
  graceMs: 100,
});
console.log(JSON.stringify({ databaseUrl, queue, explanation }));
setInterval(() => {}, 60_000);
