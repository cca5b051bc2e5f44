CREATE UNIQUE INDEX CONCURRENTLY "ModuleState_previousStateId_key" ON "ModuleState"("previousStateId");
