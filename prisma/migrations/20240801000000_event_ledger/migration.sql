-- What became of events, counted in the transactions that write them. It touches no existing table.
SET LOCAL lock_timeout = '2s';

CREATE TABLE "EventLedger" (
    "writerId" UUID NOT NULL,
    "producerId" UUID NOT NULL,
    "kind" TEXT NOT NULL,
    "accepted" BIGINT NOT NULL DEFAULT 0,
    "dropped" BIGINT NOT NULL DEFAULT 0,
    "committed" BIGINT NOT NULL DEFAULT 0,
    "duplicates" BIGINT NOT NULL DEFAULT 0,
    "discarded" BIGINT NOT NULL DEFAULT 0,
    "updatedAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "EventLedger_pkey" PRIMARY KEY ("writerId","producerId","kind")
);
