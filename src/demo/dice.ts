import { hash } from 'node:crypto';

/** Random numbers that depend on nothing but the key; up to 64 bytes of them. */
export class Dice {
  readonly #bytes: Buffer;
  #used = 0;

  constructor(...key: (string | number)[]) {
    this.#bytes = hash('sha512', key.join('/'), 'buffer');
  }

  bytes(count: number): Buffer {
    this.#used += count;
    return this.#bytes.subarray(this.#used - count, this.#used);
  }

  /** From 0 to 1, without 1. */
  next(): number {
    return this.bytes(4).readUInt32BE() / 2 ** 32;
  }

  /** A whole number from 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }
}
