CREATE INDEX CONCURRENTLY "ModuleState_sessionId_idx" ON "ModuleState"("sessionId");
