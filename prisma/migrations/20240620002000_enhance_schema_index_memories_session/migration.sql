CREATE INDEX CONCURRENTLY "InteractionMemory_sessionId_idx" ON "InteractionMemory"("sessionId");
