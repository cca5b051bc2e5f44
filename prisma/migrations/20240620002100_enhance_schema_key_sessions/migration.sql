-- Only now that "parentSessionId" has its index: without it, each DELETE would read the whole table to find
-- the rows that point at the deleted one.
SET LOCAL lock_timeout = '2s';

ALTER TABLE "AgentSession"
    ADD CONSTRAINT "AgentSession_parentSessionId_fkey" FOREIGN KEY ("parentSessionId") REFERENCES "AgentSession"("id") ON DELETE SET NULL ON UPDATE CASCADE NOT VALID;
