SET LOCAL lock_timeout = '2s';

ALTER TABLE "AgentVersion"
    ADD CONSTRAINT "AgentVersion_createdById_fkey" FOREIGN KEY ("createdById") REFERENCES "User"("id") ON DELETE SET NULL ON UPDATE CASCADE NOT VALID;
