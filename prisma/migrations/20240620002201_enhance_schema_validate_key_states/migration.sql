SET LOCAL lock_timeout = '2s';

ALTER TABLE "ModuleState"
    VALIDATE CONSTRAINT "ModuleState_previousStateId_fkey";
