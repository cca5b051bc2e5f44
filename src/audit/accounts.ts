import { CLOSED_SUMS } from '../ledger/closed.ts';
import { NO_PRODUCER } from '../ledger/ledger.ts';
import type { ProducerLedger } from '../queues/envelope.ts';
import { EVENT_KINDS, type EventKind } from '../queues/events.ts';

/** What is known of one producer's events of one kind, or of a sum of these. */
export interface Account {
  accepted: number;
  committed: number;
  /** Deliveries of events whose rows existed already. */
  duplicates: number;
  deadLetters: number;
  discarded: number;
  dropped: number;
  /** On a queue: waiting, delayed or being written. */
  queued: number;
  /** In the spool of this machine. */
  spooled: number;
}

const NOTHING: Readonly<Account> = {
  accepted: 0,
  committed: 0,
  duplicates: 0,
  deadLetters: 0,
  discarded: 0,
  dropped: 0,
  queued: 0,
  spooled: 0,
};

/** Where an event of an account may be. */
export type Place = Exclude<keyof Account, 'accepted' | 'dropped'>;

/**
 * How an account closes:
 *
 *     accepted = committed + deadLetters + discarded + dropped + queued + spooled
 *                + repeated + unaccounted - seenTwice
 *
 * and `unaccounted` and `seenTwice` are never both above 0.
 */
export interface Balance {
  /** Duplicates that stand for accepted events: ids that were emitted more than once. */
  repeated: number;
  /** The other duplicates: copies that were delivered again after a fault, and ignored. */
  copies: number;
  /** Accepted, and nowhere to be found. */
  unaccounted: number;
  /** Found in two places: on their way, or in the spool until the queue surely has them. */
  seenTwice: number;
}

export function balanceOf(account: Account): Balance {
  const { accepted, committed, duplicates, deadLetters } = account;
  const { discarded, dropped, queued, spooled } = account;
  const gap = accepted - (committed + deadLetters + discarded + dropped + queued + spooled);
  const repeated = Math.min(duplicates, Math.max(0, gap));
  return {
    repeated,
    copies: duplicates - repeated,
    unaccounted: Math.max(0, gap - repeated),
    seenTwice: Math.max(0, -gap),
  };
}

/**
 * The accounts of all producers. Each is balanced by itself, so that what one has too many does
 * not make up for what another has lost.
 */
export class Accounts {
  readonly #accounts = new Map<string, { producerId: string; kind: EventKind; account: Account }>();

  /** Events that were found somewhere. */
  add(place: Place, kind: EventKind, producerId: string, events: number): void {
    this.#of(kind, producerId)[place] += events;
  }

  /** What a producer says it has counted; of several sayings the greatest is the latest. */
  told(kind: EventKind, { id, accepted, dropped }: ProducerLedger): void {
    const account = this.#of(kind, id);
    account.accepted = Math.max(account.accepted, accepted);
    account.dropped = Math.max(account.dropped, dropped);
  }

  /** All that are known, by name. */
  producerIds(): Set<string> {
    return new Set([...this.#accounts.values()].map(({ producerId }) => producerId));
  }

  /**
   * How many of the events that `earlier` knew to be accepted are nowhere now. Of closed accounts
   * nothing has been on its way for a day, and others may have been closed since `earlier`: what
   * their sums lack now is missing.
   */
  missingSince(earlier: Accounts): number {
    let missing = 0;
    for (const { kind, producerId, account } of this.#known()) {
      const isClosed = CLOSED_SUMS.includes(producerId);
      const { accepted } = isClosed ? account : earlier.#of(kind, producerId);
      missing += balanceOf({ ...account, accepted }).unaccounted;
    }
    return missing;
  }

  /** Sums of the producers that say what they accepted. */
  byKind(): Record<EventKind, Account & Balance> {
    const sums = Object.fromEntries(
      EVENT_KINDS.map((kind) => [
        kind,
        { ...NOTHING, repeated: 0, copies: 0, unaccounted: 0, seenTwice: 0 },
      ]),
    ) as Record<EventKind, Account & Balance>;
    for (const { kind, account } of this.#known()) {
      addTo(sums[kind], { ...account, ...balanceOf(account) });
    }
    return sums;
  }

  /** The sum of those that do not, of all kinds: it has no `accepted`, and cannot be balanced. */
  elsewhere(): Account {
    const sum = { ...NOTHING };
    for (const { producerId, account } of this.#accounts.values()) {
      if (producerId === NO_PRODUCER.id) addTo(sum, account);
    }
    return sum;
  }

  #known() {
    return [...this.#accounts.values()].filter(({ producerId }) => producerId !== NO_PRODUCER.id);
  }

  #of(kind: EventKind, producerId: string): Account {
    const key = `${kind} ${producerId}`;
    let found = this.#accounts.get(key);
    if (!found) {
      found = { producerId, kind, account: { ...NOTHING } };
      this.#accounts.set(key, found);
    }
    return found.account;
  }
}

function addTo<Sum extends Record<keyof Sum, number>>(sum: Sum, more: Readonly<Sum>): void {
  for (const name of Object.keys(more) as (keyof Sum)[]) {
    sum[name] = (sum[name] + more[name]) as Sum[keyof Sum];
  }
}
