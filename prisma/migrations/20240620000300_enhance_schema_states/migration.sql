SET LOCAL lock_timeout = '2s';

ALTER TABLE "ModuleState"
    ADD COLUMN "sessionId" TEXT,
    ADD COLUMN "previousStateId" TEXT,
    ADD COLUMN "stateType" TEXT,
    ADD COLUMN "stateHash" TEXT,
    ADD COLUMN "isSnapshot" BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN "snapshotReason" TEXT,
    ADD COLUMN "expiresAt" TIMESTAMP(3),
    ADD CONSTRAINT "ModuleState_previousStateId_check" CHECK ("previousStateId" <> "id") NOT VALID;

CREATE TABLE "StateTransition" (
    "id" UUID NOT NULL,
    "occurredAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "stateId" TEXT NOT NULL,
    "triggerType" TEXT NOT NULL,
    "triggerId" TEXT,
    "transitionData" JSONB NOT NULL,
    "previousValues" JSONB,
    "newValues" JSONB,

    CONSTRAINT "StateTransition_pkey" PRIMARY KEY ("id")
);

CREATE INDEX "StateTransition_stateId_occurredAt_idx" ON "StateTransition"("stateId", "occurredAt");

ALTER TABLE "StateTransition"
    ADD CONSTRAINT "StateTransition_stateId_fkey" FOREIGN KEY ("stateId") REFERENCES "ModuleState"("id") ON DELETE CASCADE ON UPDATE CASCADE NOT VALID;
