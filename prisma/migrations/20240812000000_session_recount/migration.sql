-- What the last recount of the agents' sessions found, whoever asked for it: one row, for the board. It
-- touches no existing table.
SET LOCAL lock_timeout = '2s';

CREATE TABLE "SessionRecount" (
    "id" INTEGER NOT NULL DEFAULT 1,
    "checked" INTEGER NOT NULL,
    "agents" INTEGER NOT NULL,
    "drift" DOUBLE PRECISION NOT NULL,
    "tookMs" INTEGER NOT NULL,
    "finishedAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "SessionRecount_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "SessionRecount_one" CHECK ("id" = 1)
);
