-- Lanes of a backfill are ranges of places (blocks of the table, entries of the log) rather than of keys,
-- and keep figures of their last chunks, for the estimate.
-- It touches the bookkeeping alone. What was under way, or had failed, is cancelled: the next start goes
-- on from what the rows say, the next rollback from what the log still holds. Backfill workers of an
-- earlier version are to be stopped first: they know nothing of places.
SET LOCAL lock_timeout = '2s';

UPDATE "BackfillLane" SET "isDone" = true WHERE NOT "isDone";

UPDATE "BackfillRun"
SET "status" = 'cancelled', "reason" = 'an upgrade; start it again', "finishedAt" = coalesce("finishedAt", now() AT TIME ZONE 'utc')
WHERE "status" IN ('running', 'paused', 'failed');

ALTER TABLE "BackfillLane"
    DROP COLUMN "highKey",
    ALTER COLUMN "cursor" TYPE BIGINT USING 0,
    ALTER COLUMN "cursor" SET NOT NULL,
    ADD COLUMN "low" BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN "high" BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN "movedAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    ADD COLUMN "recentRows" DOUBLE PRECISION NOT NULL DEFAULT 0,
    ADD COLUMN "recentBusyMs" DOUBLE PRECISION NOT NULL DEFAULT 0,
    ADD COLUMN "recentWallMs" DOUBLE PRECISION NOT NULL DEFAULT 0;

ALTER TABLE "BackfillLane"
    ALTER COLUMN "low" DROP DEFAULT,
    ALTER COLUMN "high" DROP DEFAULT;
