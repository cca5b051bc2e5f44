-- Where accounts of the event ledger go that nothing has touched for a day, so that what is read
-- each second stays small. It touches no existing table.
SET LOCAL lock_timeout = '2s';

CREATE TABLE "EventLedgerClosed" (
    "producerId" UUID NOT NULL,
    "kind" TEXT NOT NULL,
    "accepted" BIGINT NOT NULL DEFAULT 0,
    "dropped" BIGINT NOT NULL DEFAULT 0,
    "committed" BIGINT NOT NULL DEFAULT 0,
    "duplicates" BIGINT NOT NULL DEFAULT 0,
    "discarded" BIGINT NOT NULL DEFAULT 0,

    CONSTRAINT "EventLedgerClosed_pkey" PRIMARY KEY ("producerId","kind")
);
