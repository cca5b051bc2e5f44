/** Has calls made one after the other, in the order in which they came; one that fails holds up none. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** @returns what the call does, when its turn has come */
  take<T>(call: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(call);
    this.#last = turn.catch(() => {});
    return turn;
  }
}
