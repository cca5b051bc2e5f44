#!/usr/bin/env node
// `ts-node FILE …` is `tsx FILE …`: see README.md beside this file for why.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
if (['-v', '--version'].includes(process.argv[2])) {
  console.log(`ts-node v${require('./package.json').version}, which is`);
}

const tsx = require.resolve('tsx/cli');
const child = spawn(process.execPath, [tsx, ...process.argv.slice(2)], { stdio: 'inherit' });

// The terminal sends Ctrl-C to the whole foreground group already, so the script hears SIGINT
// itself; what is sent to this process alone is passed on.
process.on('SIGINT', () => {});
for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => {
  if (signal) process.kill(process.pid, signal);
  else process.exitCode = code ?? 1;
});
