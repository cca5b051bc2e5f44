-- What each worker process measures, for the board. It touches no existing table. UNLOGGED: a row is
-- replaced every second while a worker is busy, and what a crash loses is measured anew.
SET LOCAL lock_timeout = '2s';

CREATE UNLOGGED TABLE "WorkerReport" (
    "worker" TEXT NOT NULL,
    "metrics" JSON NOT NULL,
    "updatedAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "WorkerReport_pkey" PRIMARY KEY ("worker")
);
