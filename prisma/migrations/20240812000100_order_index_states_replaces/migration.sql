-- One statement a file, as said in 20240620001000. The index before this one does all that it did.
DROP INDEX CONCURRENTLY IF EXISTS "ModuleState_moduleId_createdAt_idx";
