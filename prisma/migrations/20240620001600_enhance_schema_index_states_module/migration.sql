CREATE INDEX CONCURRENTLY "ModuleState_moduleId_createdAt_idx" ON "ModuleState"("moduleId", "createdAt");
