-- One statement a file, as said in 20240620001000. With "id" it holds the order of a module's chain:
-- without, states of one moment were all read to find the one before each of them.
CREATE INDEX CONCURRENTLY "ModuleState_moduleId_createdAt_id_idx" ON "ModuleState"("moduleId", "createdAt", "id");
