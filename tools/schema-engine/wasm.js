// @ts-check
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

/** What the engine said when it panicked: WebAssembly itself reports no more than `unreachable`. */
export let panicMessage = '';

/**
 * Loads the engine. The package's entry point imports its `.wasm` as a module, which Node 20 does
 * only behind a flag; the same is done by hand here.
 *
 * @returns {Promise<typeof import('@prisma/schema-engine-wasm')>}
 */
export async function loadEngine() {
  Object.assign(globalThis, {
    PRISMA_WASM_PANIC_REGISTRY: {
      /** @param {string} message */
      set_message(message) {
        panicMessage = message;
      },
    },
  });
  const glue = await import('@prisma/schema-engine-wasm/schema_engine_bg');
  const file = require
    .resolve('@prisma/schema-engine-wasm/schema_engine_bg')
    .replace(/\.js$/, '.wasm');
  const { instance } = await WebAssembly.instantiate(readFileSync(file), {
    './schema_engine_bg.js': glue,
  });
  glue.__wbg_set_wasm(instance.exports);
  /** @type {any} */ (instance.exports).__wbindgen_start();
  return glue;
}
