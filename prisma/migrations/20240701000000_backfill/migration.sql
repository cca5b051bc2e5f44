-- The backfill's own bookkeeping. It touches no existing table.
SET LOCAL lock_timeout = '2s';

CREATE TABLE "BackfillRun" (
    "id" UUID NOT NULL,
    "tableName" TEXT NOT NULL,
    "status" TEXT NOT NULL DEFAULT 'running',
    "phase" TEXT NOT NULL DEFAULT 'fill',
    "totalRows" INTEGER NOT NULL,
    "remaining" INTEGER,
    "differing" INTEGER,
    "reason" TEXT,
    "options" JSONB NOT NULL,
    "startedAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "finishedAt" TIMESTAMP(3),

    CONSTRAINT "BackfillRun_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "BackfillLane" (
    "id" SERIAL NOT NULL,
    "runId" UUID NOT NULL,
    "phase" TEXT NOT NULL,
    "cursor" TEXT,
    "highKey" TEXT,
    "isDone" BOOLEAN NOT NULL DEFAULT false,
    "token" INTEGER NOT NULL DEFAULT 0,
    "dueAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "chunkRows" INTEGER NOT NULL,
    "chunks" INTEGER NOT NULL DEFAULT 0,
    "rowsPassed" INTEGER NOT NULL DEFAULT 0,
    "rowsChanged" INTEGER NOT NULL DEFAULT 0,
    "revivals" INTEGER NOT NULL DEFAULT 0,
    "busyMs" INTEGER NOT NULL DEFAULT 0,

    CONSTRAINT "BackfillLane_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "BackfillQuarantine" (
    "runId" UUID NOT NULL,
    "rowId" TEXT NOT NULL,
    "reason" TEXT NOT NULL,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "BackfillQuarantine_pkey" PRIMARY KEY ("runId","rowId")
);

CREATE TABLE "BackfillUndo" (
    "id" SERIAL NOT NULL,
    "runId" UUID NOT NULL,
    "tableName" TEXT NOT NULL,
    "rows" JSON NOT NULL,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "BackfillUndo_pkey" PRIMARY KEY ("id")
);

CREATE INDEX "BackfillRun_tableName_startedAt_idx" ON "BackfillRun"("tableName", "startedAt");

CREATE INDEX "BackfillLane_runId_idx" ON "BackfillLane"("runId");

CREATE INDEX "BackfillUndo_runId_idx" ON "BackfillUndo"("runId");

CREATE INDEX "BackfillUndo_tableName_id_idx" ON "BackfillUndo"("tableName", "id");

ALTER TABLE "BackfillLane" ADD CONSTRAINT "BackfillLane_runId_fkey" FOREIGN KEY ("runId") REFERENCES "BackfillRun"("id") ON DELETE CASCADE ON UPDATE CASCADE;

ALTER TABLE "BackfillQuarantine" ADD CONSTRAINT "BackfillQuarantine_runId_fkey" FOREIGN KEY ("runId") REFERENCES "BackfillRun"("id") ON DELETE CASCADE ON UPDATE CASCADE;

ALTER TABLE "BackfillUndo" ADD CONSTRAINT "BackfillUndo_runId_fkey" FOREIGN KEY ("runId") REFERENCES "BackfillRun"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- At most one run a table is under way.
CREATE UNIQUE INDEX "BackfillRun_tableName_active_key" ON "BackfillRun"("tableName") WHERE "status" IN ('running', 'paused');
