CREATE INDEX CONCURRENTLY "InteractionMemory_agentId_createdAt_idx" ON "InteractionMemory"("agentId", "createdAt");
