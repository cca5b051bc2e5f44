-- Only now that "previousStateId" has its index: without it, each DELETE would read the whole table to find
-- the rows that point at the deleted one.
SET LOCAL lock_timeout = '2s';

ALTER TABLE "ModuleState"
    ADD CONSTRAINT "ModuleState_previousStateId_fkey" FOREIGN KEY ("previousStateId") REFERENCES "ModuleState"("id") ON DELETE SET NULL ON UPDATE CASCADE NOT VALID;
