SET LOCAL lock_timeout = '2s';

ALTER TABLE "ModuleState"
    VALIDATE CONSTRAINT "ModuleState_previousStateId_check";

ALTER TABLE "StateTransition"
    VALIDATE CONSTRAINT "StateTransition_stateId_fkey";
