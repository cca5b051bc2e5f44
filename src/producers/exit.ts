const spills = new Set<() => void>();
let isListening = false;

/**
 * Has `spill` called when the process ends by `process.exit()`, an uncaught exception or for want
 * of work; only what is synchronous is done then. All producers share one listener.
 *
 * @returns what undoes it
 */
export function spillAtExit(spill: () => void): () => void {
  if (!isListening) {
    isListening = true;
    process.on('exit', () => {
      for (const one of spills) one();
    });
  }
  spills.add(spill);
  return () => spills.delete(spill);
}
