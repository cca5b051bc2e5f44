CREATE INDEX CONCURRENTLY "InteractionMemory_userId_idx" ON "InteractionMemory"("userId");
