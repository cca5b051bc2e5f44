// Makes `npx annals` run this checkout's own build. npm links the commands of dependencies but not
// those of the project itself, for which `npx` would first install a copy of it elsewhere.
import { chmodSync, existsSync, rmSync, symlinkSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const at = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const link = at('node_modules/.bin/annals');

if (existsSync(at('node_modules/.bin')) && process.platform !== 'win32') {
  chmodSync(at('dist/cli/main.js'), 0o755);
  rmSync(link, { force: true });
  symlinkSync('../../dist/cli/main.js', link);
}
